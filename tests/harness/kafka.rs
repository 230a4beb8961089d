//! A real broker of Apache Kafka, which is its own controller, on free ports and in a temporary directory.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use libtest_mimic::Failed;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use super::process::{LIMIT, run, until};
use super::{block_on, root};

/// Names any cluster; each broker is one of its own.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// A broker, killed when dropped.
pub struct Broker {
    dir: TempDir,
    classes: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
}

fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Kafka's jars, where `.ci/run` or `HENGE_TEST_KAFKA` has put them.
fn jars() -> Option<PathBuf> {
    let named = std::env::var_os("HENGE_TEST_KAFKA").map(PathBuf::from);
    named.or_else(|| Some(root().join("target/ci-kafka"))).filter(|dir| dir.is_dir())
}

impl Broker {
    /// What is missing is an outcome.
    pub fn start() -> Result<Result<Self, String>, Failed> {
        let Some(jars) = jars() else {
            return Ok(Err("Kafka's jars (see .ci/run), in the directory HENGE_TEST_KAFKA".to_owned()));
        };
        if Command::new("java").arg("-version").stderr(Stdio::null()).status().is_err() {
            return Ok(Err("java".to_owned()));
        }
        let (dir, port, control) = (TempDir::new()?, free_port()?, free_port()?);
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}");
        let data = dir.path().join("data");
        let properties = [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("controller.quorum.bootstrap.servers", &format!("127.0.0.1:{control}")),
            ("listeners", &listeners),
            ("advertised.listeners", &listeners),
            ("controller.listener.names", "CONTROLLER"),
            ("log.dirs", &data.to_string_lossy()),
            ("auto.create.topics.enable", "false"),
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.num.partitions", "1"),
            ("file.delete.delay.ms", "0"),
        ];
        let text = properties.map(|(name, value)| format!("{name}={value}\n")).concat();
        std::fs::write(dir.path().join("properties"), text)?;
        let broker = Self { dir, classes: jars.join("*"), port, child: Mutex::default() };
        let mut format = broker.java("kafka.tools.StorageTool");
        format.args(["format", "--standalone", "-t", CLUSTER_ID, "-c", "properties"]);
        run(format)?.ok()?;
        broker.go()?;
        Ok(Ok(broker))
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        java.arg(&self.classes).arg(class).current_dir(self.dir.path());
        java
    }

    /// Starts it, again, on what it has, and waits until it answers.
    pub fn go(&self) -> Result<(), Failed> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = self.java("kafka.Kafka");
        command.arg("properties").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *self.child.lock().expect("nothing panics while it is held") = Some(command.spawn()?);
        let client: BaseConsumer = self.client().create()?;
        let is_up = || Ok(client.fetch_metadata(None, Duration::from_secs(1)).ok().filter(|m| !m.brokers().is_empty()));
        until("a broker that answers", is_up).map(drop)
    }

    /// Ends it as a power switch would.
    pub fn stop(&self) -> Result<(), Failed> {
        if let Some(mut child) = self.child.lock().expect("nothing panics while it is held").take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Failed> {
        Ok(self.client().create()?)
    }

    pub fn make_topic(&self, topic: &str, partitions: i32) -> Result<(), Failed> {
        let admin = self.admin()?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        // One that was just removed may be there for a moment.
        until("a topic that is made", || {
            match block_on(admin.create_topics([&new], &AdminOptions::new()))?.remove(0) {
                Ok(_) => Ok(Some(())),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(None),
                Err((_, code)) => Err(code.to_string().into()),
            }
        })?;
        self.until_led(topic, partitions)
    }

    /// A topic takes records once its partitions have leaders.
    fn until_led(&self, topic: &str, partitions: i32) -> Result<(), Failed> {
        let client: BaseConsumer = self.client().create()?;
        until("partitions that are led", || {
            let there = (0..partitions).all(|p| client.fetch_watermarks(topic, p, Duration::from_secs(5)).is_ok());
            Ok(there.then_some(()))
        })
    }

    pub fn remove_topic(&self, topic: &str) -> Result<(), Failed> {
        let removed = block_on(self.admin()?.delete_topics(&[topic], &AdminOptions::new()))?.remove(0);
        removed.map_err(|(_, code)| code.to_string())?;
        let client: BaseConsumer = self.client().create()?;
        until("a topic that is gone", || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
            Ok((!metadata.topics().iter().any(|known| known.name() == topic)).then_some(()))
        })
    }

    pub fn add_partitions(&self, topic: &str, partitions: usize) -> Result<(), Failed> {
        let new = NewPartitions::new(topic, partitions);
        let added = block_on(self.admin()?.create_partitions([&new], &AdminOptions::new()))?.remove(0);
        added.map_err(|(_, code)| code.to_string())?;
        self.until_led(topic, i32::try_from(partitions)?)
    }

    pub fn remove_records(&self, topic: &str, partition: i32, before: i64) -> Result<(), Failed> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let removed = block_on(self.admin()?.delete_records(&list, &AdminOptions::new()))?;
        removed.elements().iter().try_for_each(|element| Ok(element.error()?))
    }

    /// The offsets that are next, of all partitions together.
    pub fn ends(&self, topic: &str, partitions: i32) -> Result<BTreeMap<i32, i64>, Failed> {
        let client: BaseConsumer = self.client().create()?;
        let end = |p| Ok((p, client.fetch_watermarks(topic, p, Duration::from_secs(5))?.1));
        (0..partitions).map(end).collect()
    }

    /// Writes records to a topic, none of them twice.
    pub fn writer(&self) -> Result<Writer, Failed> {
        let config = self.client().set("enable.idempotence", "true").set("linger.ms", "5").clone();
        Ok(Writer { producer: config.create()? })
    }

    /// The same in transactions.
    pub fn transactions(&self, id: &str) -> Result<Writer, Failed> {
        let producer: BaseProducer = self.client().set("transactional.id", id).create()?;
        producer.init_transactions(LIMIT)?;
        Ok(Writer { producer })
    }

    /// What it wrote to its log, for messages.
    pub fn log(&self) -> PathBuf {
        let path: &Path = self.dir.path();
        path.join("log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.stop();
    }
}

pub struct Writer {
    producer: BaseProducer,
}

/// A record to be written.
#[derive(Clone, Copy, Default)]
pub struct Written<'a> {
    pub partition: i32,
    pub key: Option<&'a str>,
    pub value: Option<&'a [u8]>,
    pub header: Option<(&'a str, &'a str)>,
}

impl Writer {
    pub fn write(&self, topic: &str, partition: i32, value: &str) -> Result<(), Failed> {
        self.write_record(topic, Written { partition, value: Some(value.as_bytes()), ..Written::default() })
    }

    pub fn write_record(&self, topic: &str, written: Written<'_>) -> Result<(), Failed> {
        let mut record = BaseRecord::<str, [u8]>::to(topic).partition(written.partition);
        record.key = written.key;
        record.payload = written.value;
        record.headers =
            written.header.map(|(key, value)| OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        while let Err((error, back)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(20));
            record = back;
        }
        Ok(())
    }

    /// Waits until all are there.
    pub fn flush(&self) -> Result<(), Failed> {
        Ok(self.producer.flush(LIMIT)?)
    }

    pub fn begin(&self) -> Result<(), Failed> {
        Ok(self.producer.begin_transaction()?)
    }

    pub fn commit(&self) -> Result<(), Failed> {
        Ok(self.producer.commit_transaction(LIMIT)?)
    }

    pub fn abort(&self) -> Result<(), Failed> {
        self.flush()?;
        Ok(self.producer.abort_transaction(LIMIT)?)
    }
}
