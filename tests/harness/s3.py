"""A real S3 server (moto) with a bucket `edits` that holds the files named on the command line.

Prints where it listens, and ends with its standard input. A prefix, a line on standard input, is emptied.
"""

import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
s3.create_bucket(Bucket="edits")
for path in map(Path, sys.argv[1:]):
    s3.upload_file(str(path), "edits", f"days/{path.name}", ExtraArgs={"ACL": "public-read"})
print(endpoint, flush=True)
for line in sys.stdin:
    for item in s3.list_objects_v2(Bucket="edits", Prefix=line.strip()).get("Contents", []):
        s3.delete_object(Bucket="edits", Key=item["Key"])
    print("emptied", flush=True)
server.stop()
