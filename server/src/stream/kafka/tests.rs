//! Against librdkafka's own mock of a cluster, for faults that a real broker does not have on order.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;

fn place(cluster: &MockCluster<'_, DefaultProducerContext>) -> StreamPlace {
    StreamPlace {
        kind: "kafka".to_owned(),
        topic: "edits".to_owned(),
        properties: [("bootstrap.servers".to_owned(), cluster.bootstrap_servers())].into(),
        client: "henge-test".to_owned(),
        with_headers: false,
    }
}

/// Values from here on, as many as asked for.
fn read(supplier: &mut KafkaSupplier, number: usize) -> Vec<(u64, String)> {
    let mut values = Vec::new();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while values.len() < number && std::time::Instant::now() < until {
        let polled = supplier.poll(Duration::from_millis(100), &mut |record| {
            values.push((record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
        });
        if matches!(polled, Polled::OutOfRange) {
            break;
        }
    }
    values
}

/// F37: brokers go and come back; no record is left out or comes twice.
#[test]
fn records_come_once_and_in_their_order_while_brokers_go_and_come_back() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("edits", 1, 1).unwrap();
    let place = place(&cluster);
    let writer = TopicWriter::open(&format!("{}/edits", cluster.bootstrap_servers())).unwrap();
    writer.write_lines(b"a\nb\nc\n").unwrap();
    writer.flush().unwrap();
    let mut supplier = KafkaSupplier::new(&place).unwrap();
    let survey = supplier.survey().unwrap();
    assert_eq!(survey.partitions, BTreeMap::from([(0, 0..3)]));
    assert!(survey.source.cluster_id.is_some());
    supplier.assign(&BTreeMap::from([(0, 1)])).unwrap();
    assert_eq!(read(&mut supplier, 2), [(1, "b".to_owned()), (2, "c".to_owned())]);
    cluster.broker_down(1).unwrap();
    assert_eq!(supplier.survey().unwrap_err().category(), Category::ServiceUnavailable);
    cluster.broker_up(1).unwrap();
    writer.write_lines(b"d\n").unwrap();
    writer.flush().unwrap();
    assert_eq!(read(&mut supplier, 1), [(3, "d".to_owned())]);
    assert_eq!(supplier.survey().unwrap().partitions, BTreeMap::from([(0, 0..4)]));
}

#[test]
fn an_offset_that_is_not_there_is_told_and_not_replaced() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("edits", 1, 1).unwrap();
    let mut supplier = KafkaSupplier::new(&place(&cluster)).unwrap();
    supplier.assign(&BTreeMap::from([(0, 7)])).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let polled = supplier.poll(Duration::from_millis(100), &mut |record| panic!("{record:?}"));
        if matches!(polled, Polled::OutOfRange) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{polled:?}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let cluster = MockCluster::new(1).unwrap();
    // A mock makes topics that are asked for.
    cluster.topic_error("edits", rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let error = KafkaSupplier::new(&place(&cluster)).unwrap().survey().unwrap_err();
    assert_eq!(error.category(), Category::NotFound, "{error}");
}
