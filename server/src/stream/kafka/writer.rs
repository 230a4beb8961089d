use std::time::{Duration, Instant};

use henge_engine::{Error, Result};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::Quiet;

/// How long a record may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long room for another record is waited for at a time.
const WAIT: Duration = Duration::from_millis(100);

/// Writes lines to a topic, each a record, with no record lost or written twice while it lives.
pub struct TopicWriter {
    producer: BaseProducer<Delivered>,
    topic: String,
}

impl std::fmt::Debug for TopicWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicWriter").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Hears which records were not written.
#[derive(Debug, Default)]
struct Delivered {
    failed: parking_lot::Mutex<Option<KafkaError>>,
}

impl rdkafka::client::ClientContext for Delivered {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivery {
            self.failed.lock().get_or_insert_with(|| error.clone());
        }
    }
}

impl TopicWriter {
    /// Of `BROKER/TOPIC`, such as `localhost:9092/edits`.
    pub fn open(place: &str) -> Result<Self> {
        let (brokers, topic) =
            place.rsplit_once('/').filter(|(b, t)| !b.is_empty() && !t.is_empty()).ok_or_else(|| {
                Error::invalid_input(format!("`{place}` is not a broker and a topic, such as `localhost:9092/edits`"))
            })?;
        let mut config = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", brokers),
            ("client.id", "henge-generate"),
            ("enable.idempotence", "true"),
            ("linger.ms", "20"),
            ("compression.type", "lz4"),
            ("message.timeout.ms", "60000"),
        ] {
            config.set(name, value);
        }
        let producer = config.create_with_context(Delivered::default()).map_err(|error| cannot(topic, error))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Hands over the lines of `text`; waits while there is no room for more.
    pub fn write_lines(&self, text: &[u8]) -> Result<()> {
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let until = Instant::now() + PATIENCE;
            let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(line);
            while let Err((error, back)) = self.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || Instant::now() > until {
                    return Err(cannot(&self.topic, error));
                }
                self.producer.poll(WAIT);
                record = back;
            }
        }
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    /// Waits until all records are written.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(PATIENCE).map_err(|error| cannot(&self.topic, error))?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        let failed = self.producer.context().failed.lock().take();
        failed.map_or(Ok(()), |error| Err(cannot(&self.topic, error)))
    }
}

fn cannot(topic: &str, error: KafkaError) -> Error {
    let code = error.rdkafka_error_code().map(|code| format!(": {code}")).unwrap_or_default();
    Error::runtime_failure(format!("records cannot be written to topic `{topic}`{code}")).with_source(error)
}
