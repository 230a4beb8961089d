//! Topics of Kafka, with librdkafka. Offsets are never committed to Kafka and never reset: the metadata store has them.

mod identity;
mod properties;
mod writer;

use std::collections::BTreeMap;
use std::time::Duration;

use henge_engine::error::{Category, Persona};
use henge_engine::ingest::stream::{Partition, Polled, Record, RecordSupplier, StreamPlace, StreamSource, Survey};
use henge_engine::{Error, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

pub use self::writer::TopicWriter;

/// How long a broker has to answer a question.
const ANSWER: Duration = Duration::from_secs(5);

/// What librdkafka says goes where our own words go, and no louder than those of other libraries.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // That a broker is away is told by the state of the supervisor.
        tracing::debug!(target: "librdkafka", ?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// A connection to a topic. Connects when it is first used.
pub struct KafkaSupplier {
    topic: String,
    config: ClientConfig,
    with_headers: bool,
    /// Asks about the topic.
    asking: Option<BaseConsumer<Quiet>>,
    cluster_id: Option<String>,
    reading: Option<BaseConsumer<Quiet>>,
}

impl std::fmt::Debug for KafkaSupplier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration may hold a password.
        f.debug_struct("KafkaSupplier").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Finds what is wrong with properties, without reaching a broker.
pub fn check(place: &StreamPlace) -> Result<Vec<String>> {
    let (config, notes) = properties::config(place)?;
    config.create_native_config().map_err(wrong_property)?;
    Ok(notes)
}

fn wrong_property(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            Error::invalid_input(format!("`{name}` of `consumerProperties`: {description}"))
        }
        other => Error::invalid_input("`consumerProperties` cannot be used").with_source(other),
    }
}

impl KafkaSupplier {
    pub fn new(place: &StreamPlace) -> Result<Self> {
        let (config, _) = properties::config(place)?;
        Ok(Self {
            topic: place.topic.clone(),
            config,
            with_headers: place.with_headers,
            asking: None,
            cluster_id: None,
            reading: None,
        })
    }

    /// The offsets of all partitions, and a broker that leads one of them.
    fn partitions(&self, client: &BaseConsumer<Quiet>) -> Result<(BTreeMap<Partition, std::ops::Range<u64>>, i32)> {
        let metadata = client.fetch_metadata(Some(&self.topic), ANSWER).map_err(|error| self.unavailable(error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let topic = topic.ok_or_else(|| self.no_topic())?;
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Err(self.no_topic());
            }
            Some(code) => return Err(self.unavailable(KafkaError::MetadataFetch(code))),
        }
        let range = |partition: i32| {
            let (low, high) =
                client.fetch_watermarks(&self.topic, partition, ANSWER).map_err(|error| self.unavailable(error))?;
            Ok((number(partition), offset(low)..offset(high)))
        };
        let partitions = topic.partitions().iter().map(|partition| range(partition.id())).collect::<Result<_>>()?;
        Ok((partitions, topic.partitions().first().map_or(-1, |partition| partition.leader())))
    }

    fn no_topic(&self) -> Error {
        Error::not_found(format!("there is no topic `{}` on the brokers; make it, or name another one", self.topic))
    }

    fn unavailable(&self, error: KafkaError) -> Error {
        let code = error.rdkafka_error_code().map(|code| format!(": {code}")).unwrap_or_default();
        Error::new(
            Category::ServiceUnavailable,
            Persona::Admin,
            format!("topic `{}` cannot be read just now{code}", self.topic),
        )
        .with_source(error)
        .retryable(true)
    }
}

impl RecordSupplier for KafkaSupplier {
    fn survey(&mut self) -> Result<Survey> {
        let client = match self.asking.take() {
            Some(client) => client,
            None => {
                let mut config = self.config.clone();
                // Whoever only asks is no member of a group.
                config.remove("group.id");
                config.create_with_context(Quiet).map_err(wrong_property)?
            }
        };
        let survey = (|| {
            let (partitions, broker) = self.partitions(&client)?;
            if self.cluster_id.is_none() {
                self.cluster_id = client.client().fetch_cluster_id(ANSWER);
            }
            let topic_id = identity::topic_id(client.client(), &self.topic, broker, ANSWER);
            let topic_id = topic_id.map_err(|code| self.unavailable(KafkaError::MetadataFetch(code)))?;
            Ok(Survey { source: StreamSource { cluster_id: self.cluster_id.clone(), topic_id }, partitions })
        })();
        // Errors of its connections, which the answer has told already.
        while client.poll(Duration::ZERO).is_some() {}
        self.asking = Some(client);
        survey
    }

    fn assign(&mut self, from: &BTreeMap<Partition, u64>) -> Result<()> {
        let consumer: BaseConsumer<Quiet> = match self.reading.take() {
            Some(consumer) => consumer,
            None => self.config.create_with_context(Quiet).map_err(wrong_property)?,
        };
        let failed = |error| Error::runtime_failure("partitions cannot be read").with_source(error);
        let mut list = TopicPartitionList::with_capacity(from.len());
        for (partition, offset) in from {
            let number = |_| Error::defensive("a partition or an offset that Kafka cannot have");
            let partition = i32::try_from(*partition).map_err(number)?;
            let offset = Offset::Offset(i64::try_from(*offset).map_err(number)?);
            list.add_partition_offset(&self.topic, partition, offset).map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        self.reading = Some(consumer);
        Ok(())
    }

    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(&Record<'_>)) -> Polled {
        let Some(consumer) = &self.reading else {
            return Polled::Trouble(Error::defensive("no partition is assigned"));
        };
        let message = match consumer.poll(wait) {
            None => return Polled::Nothing,
            Some(Ok(message)) => message,
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => return Polled::OutOfRange,
            Some(Err(error)) => return Polled::Trouble(self.unavailable(error)),
        };
        let headers = message.headers().filter(|_| self.with_headers);
        take(&Record {
            partition: number(message.partition()),
            offset: offset(message.offset()),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: headers.map_or_else(Vec::new, |all| all.iter().map(|one| (one.key, one.value)).collect()),
        });
        Polled::Record
    }
}

/// Partitions and offsets of records are never negative.
fn number(partition: i32) -> Partition {
    u32::try_from(partition).unwrap_or(0)
}

fn offset(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests;
