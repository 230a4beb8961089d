//! Messages from the client, out of the bytes it sent.
//!
//! The crate `pgwire` decodes these too, but reads past the end of a message whose inner lengths lie, into the next
//! message or a panic. Here every message is cut out by its own length first, and reading beyond it is an error, so
//! that a hostile packet ends its own connection and nothing else.

use bytes::{Buf, Bytes, BytesMut};

/// Before the client has said who it is, no message needs more.
const STARTUP_LIMIT_BYTES: usize = 10_000;
/// The longest message (statement or parameters) taken from a client.
const MESSAGE_LIMIT_BYTES: usize = 256 << 20;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What a client may say first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: i32 },
    Startup { minor: u16, parameters: Vec<(String, String)> },
}

/// What a client may say once it is connected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        formats: Vec<i16>,
        values: Vec<Option<Bytes>>,
        result_formats: Vec<i16>,
    },
    Describe(Target, String),
    Close(Target, String),
    Execute {
        portal: String,
        max_rows: usize,
    },
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    /// Why the client gives up.
    CopyFail(String),
    /// Passwords and calls of functions, which nobody asked for.
    Unexpected(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Statement,
    Portal,
}

/// The bytes are not the protocol: the connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation(pub String);

type Decoded<T> = Result<T, Violation>;

fn violation<T>(words: impl Into<String>) -> Decoded<T> {
    Err(Violation(words.into()))
}

/// Takes the first message off `buffer`, if all of it has arrived.
pub(super) fn decode_hello(buffer: &mut BytesMut) -> Decoded<Option<Hello>> {
    let Some(mut body) = take_message(buffer, 0, STARTUP_LIMIT_BYTES)? else { return Ok(None) };
    let hello = match body.u32()? {
        SSL_REQUEST => Hello::Ssl,
        GSS_REQUEST => Hello::Gss,
        CANCEL_REQUEST => Hello::Cancel { pid: body.u32()? as i32, secret: body.u32()? as i32 },
        version if version >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let key = body.string()?;
                if key.is_empty() {
                    break;
                }
                parameters.push((key, body.string()?));
            }
            Hello::Startup { minor: version as u16, parameters }
        }
        version => return violation(format!("unsupported protocol {}.{}", version >> 16, version & 0xffff)),
    };
    Ok(Some(hello))
}

/// Takes the body of an answer to a question for a password off `buffer`, if all of it has arrived.
pub(super) fn decode_password(buffer: &mut BytesMut) -> Decoded<Option<Bytes>> {
    match buffer.first() {
        None => Ok(None),
        Some(b'p') => Ok(take_message(buffer, 1, STARTUP_LIMIT_BYTES)?.map(|body| body.0)),
        Some(kind) => violation(format!("expected password response, got message type {kind}")),
    }
}

/// Takes one message off `buffer`, if all of it has arrived.
pub(super) fn decode(buffer: &mut BytesMut) -> Decoded<Option<Message>> {
    let Some(&kind) = buffer.first() else { return Ok(None) };
    if !kind.is_ascii_alphabetic() {
        return violation(format!("invalid message type {kind}"));
    }
    let Some(mut body) = take_message(buffer, 1, MESSAGE_LIMIT_BYTES)? else { return Ok(None) };
    let message = match kind {
        b'Q' => Message::Query(body.string()?),
        b'P' => parse(&mut body)?,
        b'B' => bind(&mut body)?,
        b'D' => Message::Describe(body.target()?, body.string()?),
        b'C' => Message::Close(body.target()?, body.string()?),
        b'E' => Message::Execute { portal: body.string()?, max_rows: (body.u32()? as i32).max(0) as usize },
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' => return Ok(Some(Message::CopyData(body.0))),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(body.string()?),
        b'p' | b'F' => return Ok(Some(Message::Unexpected(kind))),
        _ => return violation(format!("invalid message type {kind}")),
    };
    if body.0.has_remaining() {
        return violation("invalid message format: bytes left over");
    }
    Ok(Some(message))
}

fn parse(body: &mut Body) -> Decoded<Message> {
    let (name, sql) = (body.string()?, body.string()?);
    let types = body.list(Body::u32)?;
    Ok(Message::Parse { name, sql, types })
}

fn bind(body: &mut Body) -> Decoded<Message> {
    let (portal, statement) = (body.string()?, body.string()?);
    let formats = body.list(Body::i16)?;
    let values = body.list(Body::value)?;
    let result_formats = body.list(Body::i16)?;
    Ok(Message::Bind { portal, statement, formats, values, result_formats })
}

/// Cuts off one message of `prefix` bytes, a length and a body. Nothing is cut off until all of it is there.
fn take_message(buffer: &mut BytesMut, prefix: usize, limit: usize) -> Decoded<Option<Body>> {
    let Some(length) = buffer.get(prefix..prefix + 4) else { return Ok(None) };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if !(4..=limit).contains(&length) {
        return violation(format!("invalid message length {length}"));
    }
    if buffer.len() < prefix + length {
        buffer.reserve((prefix + length - buffer.len()).min(1 << 20));
        return Ok(None);
    }
    let mut message = buffer.split_to(prefix + length);
    message.advance(prefix + 4);
    Ok(Some(Body(message.freeze())))
}

struct Body(Bytes);

impl Body {
    fn take(&mut self, length: usize) -> Decoded<Bytes> {
        if self.0.len() < length {
            return violation("invalid message format: message is too short");
        }
        Ok(self.0.split_to(length))
    }

    fn i16(&mut self) -> Decoded<i16> {
        Ok(self.take(2)?.get_i16())
    }

    fn u32(&mut self) -> Decoded<u32> {
        Ok(self.take(4)?.get_u32())
    }

    fn string(&mut self) -> Decoded<String> {
        let Some(end) = self.0.iter().position(|&byte| byte == 0) else {
            return violation("invalid string in message: no end");
        };
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => violation("invalid byte sequence for encoding \"UTF8\""),
        }
    }

    fn target(&mut self) -> Decoded<Target> {
        match self.take(1)?[0] {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => violation(format!("invalid target {other}")),
        }
    }

    fn value(&mut self) -> Decoded<Option<Bytes>> {
        match self.u32()? as i32 {
            -1 => Ok(None),
            length if length >= 0 => Ok(Some(self.take(length as usize)?)),
            length => violation(format!("invalid parameter length {length}")),
        }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.i16()? as u16;
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        buffer.put_u8(kind);
        buffer.put_u32(body.len() as u32 + 4);
        buffer.put_slice(body);
        buffer
    }

    #[test]
    fn a_message_is_taken_only_when_all_of_it_has_arrived() {
        let whole = message(b'Q', b"select 1\0");
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(decode(&mut part), Ok(None), "{end} bytes");
        }
        assert_eq!(decode(&mut whole.clone()), Ok(Some(Message::Query("select 1".into()))));
    }

    #[test]
    fn bind_carries_formats_and_nulls() {
        let mut buffer = message(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0");
        let expected = Message::Bind {
            portal: "p".into(),
            statement: "s".into(),
            formats: vec![1],
            values: vec![Some(Bytes::from_static(b"x")), None],
            result_formats: vec![],
        };
        assert_eq!(decode(&mut buffer), Ok(Some(expected)));
    }

    #[test]
    fn inner_lengths_that_lie_are_violations_and_never_read_the_next_message() {
        for body in [
            &b"p\0s\0\0\0\0\x01\0\0\0\xffx\0\0"[..],
            b"p\0s\0\x7f\xff",
            b"p\0s",
            b"",
            b"p\0s\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
        ] {
            let mut buffer = message(b'B', body);
            buffer.put_slice(&[b'S'; 300]);
            assert!(decode(&mut buffer).is_err(), "{body:?}");
        }
    }

    #[test]
    fn lengths_out_of_bounds_and_unknown_types_are_violations() {
        assert!(decode(&mut BytesMut::from(&b"Q\0\0\0\x03"[..])).is_err());
        assert!(decode(&mut BytesMut::from(&b"Q\xff\xff\xff\xff"[..])).is_err());
        assert!(decode(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])).is_err());
        assert!(decode_hello(&mut BytesMut::from(&b"\0\x10\0\0\0\x03\0\0"[..])).is_err());
    }

    #[test]
    fn startup_parameters_are_read() {
        let mut buffer = BytesMut::new();
        buffer.put_u32(4 + 4 + 11 + 1);
        buffer.put_u32(3 << 16);
        buffer.put_slice(b"user\0henge\0\0");
        let parameters = vec![("user".to_owned(), "henge".to_owned())];
        assert_eq!(decode_hello(&mut buffer), Ok(Some(Hello::Startup { minor: 0, parameters })));
    }
}
