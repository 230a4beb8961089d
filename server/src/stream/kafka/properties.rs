//! Which of `consumerProperties` are handed on, by list: what decides over offsets is not for anybody to change.

use henge_engine::ingest::stream::StreamPlace;
use henge_engine::{Error, Result};
use rdkafka::config::ClientConfig;

const SERVERS: &str = "bootstrap.servers";

/// Handed on under the library's name, which is the second one.
const KNOWN: [(&str, &str); 33] = [
    (SERVERS, SERVERS),
    ("client.id", "client.id"),
    ("client.rack", "client.rack"),
    ("group.id", "group.id"),
    ("isolation.level", "isolation.level"),
    ("security.protocol", "security.protocol"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password"),
    ("fetch.min.bytes", "fetch.min.bytes"),
    ("fetch.max.bytes", "fetch.max.bytes"),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("fetch.wait.max.ms", "fetch.wait.max.ms"),
    ("fetch.error.backoff.ms", "fetch.error.backoff.ms"),
    ("max.partition.fetch.bytes", "max.partition.fetch.bytes"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("message.max.bytes", "message.max.bytes"),
    ("receive.message.max.bytes", "receive.message.max.bytes"),
    ("queued.min.messages", "queued.min.messages"),
    ("queued.max.messages.kbytes", "queued.max.messages.kbytes"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("socket.receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("socket.timeout.ms", "socket.timeout.ms"),
    ("socket.keepalive.enable", "socket.keepalive.enable"),
    ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.ms"),
    ("connections.max.idle.ms", "connections.max.idle.ms"),
    ("metadata.max.age.ms", "metadata.max.age.ms"),
    ("reconnect.backoff.ms", "reconnect.backoff.ms"),
    ("reconnect.backoff.max.ms", "reconnect.backoff.max.ms"),
    ("broker.address.family", "broker.address.family"),
    ("check.crcs", "check.crcs"),
    ("client.dns.lookup", "client.dns.lookup"),
];

/// Of Java's client, or of groups, which there are none of here.
const HARMLESS: [&str; 10] = [
    "key.deserializer",
    "value.deserializer",
    "max.poll.records",
    "max.poll.interval.ms",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "request.timeout.ms",
    "default.api.timeout.ms",
    "auto.commit.interval.ms",
    "exclude.internal.topics",
];

/// What is always so.
const FIXED: [(&str, &str); 6] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
    ("enable.partition.eof", "false"),
    ("log.connection.close", "false"),
];

/// What is so unless it is said otherwise: rows of a transaction that was aborted are not taken, and a broker that comes
/// back is found again soon.
const DEFAULTS: [(&str, &str); 4] = [
    ("isolation.level", "read_committed"),
    ("reconnect.backoff.max.ms", "2000"),
    ("fetch.wait.max.ms", "100"),
    ("check.crcs", "true"),
];

/// The configuration of the library, and notes on what has no effect.
pub(super) fn config(place: &StreamPlace) -> Result<(ClientConfig, Vec<String>)> {
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS.into_iter().chain([("group.id", place.client.as_str()), ("client.id", &place.client)])
    {
        config.set(name, value);
    }
    let mut notes = Vec::new();
    for (name, value) in &place.properties {
        let known = KNOWN.iter().find(|(known, _)| known == name);
        match (name.as_str(), known) {
            (_, Some((_, name))) => {
                check_security(name, value)?;
                config.set(*name, value.trim());
            }
            ("enable.auto.commit", _) if value == "false" => {}
            ("auto.offset.reset", _) if value == "none" || value == "error" => {}
            ("enable.auto.commit" | "auto.offset.reset", _) => {
                return Err(Error::unsupported(format!(
                    "`{name}` of `consumerProperties` cannot be `{value}`: how far a topic was read is kept with the \
                     segments, and is never reset but by a person; leave it out"
                )));
            }
            (name, None) if HARMLESS.contains(&name) => {
                notes.push(format!("`{name}` of `consumerProperties` has no effect here"));
            }
            (name, None) => return Err(unknown(name)),
        }
    }
    if config.get(SERVERS).is_none_or(str::is_empty) {
        return Err(Error::invalid_input(format!(
            "`consumerProperties` must name the brokers with `{SERVERS}`, such as `localhost:9092`"
        )));
    }
    for (name, value) in FIXED {
        config.set(name, value);
    }
    Ok((config, notes))
}

fn check_security(name: &str, value: &str) -> Result<()> {
    let refused = |what: &str| Err(Error::unsupported(format!("`{name}` `{value}` is not supported: {what}")));
    match (name, value.trim().to_ascii_uppercase().as_str()) {
        ("security.protocol", "SSL" | "SASL_SSL") => {
            refused("this henge speaks to Kafka without TLS; use `PLAINTEXT` or `SASL_PLAINTEXT`, or a proxy")
        }
        ("sasl.mechanism", mechanism) if mechanism != "PLAIN" => refused("use `PLAIN`"),
        _ => Ok(()),
    }
}

fn unknown(name: &str) -> Error {
    let hint = match name {
        "sasl.jaas.config" => "use `sasl.username` and `sasl.password`".to_owned(),
        name if name.starts_with("ssl.") => "this henge speaks to Kafka without TLS".to_owned(),
        _ => {
            let mut known = KNOWN.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            known.sort_unstable();
            format!("those that are: {}", known.join(", "))
        }
    };
    Error::unsupported(format!("`{name}` of `consumerProperties` is not handed on; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(properties: &[(&str, &str)]) -> StreamPlace {
        let brokers = [(SERVERS, "localhost:9092")];
        let all = brokers.iter().chain(properties);
        StreamPlace {
            kind: "kafka".to_owned(),
            topic: "edits".to_owned(),
            properties: all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            client: "henge-wiki".to_owned(),
            with_headers: false,
        }
    }

    #[test]
    fn what_decides_over_offsets_cannot_be_changed() {
        let (config, notes) = config(&place(&[("fetch.max.wait.ms", "7"), ("session.timeout.ms", "1")])).unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert!(notes[0].contains("session.timeout.ms"), "{notes:?}");
        for (name, value, word) in [
            ("enable.auto.commit", "true", "never reset"),
            ("auto.offset.reset", "earliest", "never reset"),
            ("security.protocol", "SASL_SSL", "without TLS"),
            ("sasl.mechanism", "SCRAM-SHA-512", "PLAIN"),
            ("ssl.ca.location", "/a", "without TLS"),
            ("plugin.library.paths", "/a.so", "not handed on"),
            (SERVERS, "", SERVERS),
        ] {
            let error = super::config(&place(&[(name, value)])).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_value_that_the_library_does_not_take_is_named() {
        let error = super::super::check(&place(&[("fetch.min.bytes", "many")])).unwrap_err().to_string();
        assert!(error.contains("fetch.min.bytes"), "{error}");
        assert_eq!(super::super::check(&place(&[])).unwrap(), Vec::<String>::new());
    }
}
