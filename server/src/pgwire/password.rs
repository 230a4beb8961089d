//! The exchange by which a client proves that it knows a password: SCRAM-SHA-256, also bound to the encryption.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use henge_engine::Error;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth};
use pgwire::api::auth::sasl::{SCRAM_SHA_256_METHOD, SCRAM_SHA_256_PLUS_METHOD};
use pgwire::error::PgWireError;

use super::connection::{Stop, Stream, Wire};
use super::encode::{begin_message, end_message, put_cstring};
use super::error::protocol_violation;
use super::frontend::decode_password;
use crate::auth::wrong_password;

/// Kinds of the message `Authentication`.
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// Asks for the password of `secret`. `certificates` are those of the encryption, if there is one.
pub(super) async fn ask<S: Stream>(
    wire: &mut Wire<S>,
    user: &str,
    secret: ScramSecret,
    certificates: Option<&[u8]>,
) -> Result<(), Stop> {
    let mut scram = ScramServerAuth::new();
    if let Some(certificates) = certificates {
        scram.configure_certificate(certificates).map_err(|error| unusable(&error))?;
    }
    let mut methods = vec![SCRAM_SHA_256_METHOD];
    if certificates.is_some() {
        methods.insert(0, SCRAM_SHA_256_PLUS_METHOD);
    }
    put_methods(&methods, &mut wire.output);
    wire.flush().await?;
    let first = first_message(answer(wire).await?, &methods)?;
    let (reply, waiting) =
        scram.on_client_first_message_with_secret(&first, secret).map_err(|error| refused(&error, user))?;
    put(SASL_CONTINUE, reply.as_bytes(), &mut wire.output);
    wire.flush().await?;
    let last = answer(wire).await?;
    let reply = waiting.on_client_final_message(&last).map_err(|error| refused(&error, user))?;
    put(SASL_FINAL, reply.as_bytes(), &mut wire.output);
    Ok(())
}

fn put_methods(methods: &[&str], out: &mut BytesMut) {
    let start = begin_message(out, b'R');
    out.put_u32(SASL);
    methods.iter().for_each(|method| put_cstring(out, method));
    out.put_u8(0);
    end_message(out, start);
}

fn put(kind: u32, data: &[u8], out: &mut BytesMut) {
    let start = begin_message(out, b'R');
    out.put_u32(kind);
    out.put_slice(data);
    end_message(out, start);
}

/// The body of the client's next message, which must be an answer.
async fn answer<S: Stream>(wire: &mut Wire<S>) -> Result<Bytes, Stop> {
    loop {
        match decode_password(&mut wire.input).map_err(|violation| protocol_violation(&violation.0))? {
            Some(body) => return Ok(body),
            None => wire.read().await?,
        }
    }
}

/// The method that the client chose, and what it says by it.
fn first_message(mut body: Bytes, methods: &[&str]) -> Result<Bytes, Error> {
    let malformed = || protocol_violation("malformed SASL message");
    let end = body.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    let method = body.split_to(end);
    if !methods.iter().any(|known| known.as_bytes() == method.as_ref()) {
        return Err(protocol_violation("the client chose a SASL mechanism that was not offered"));
    }
    body.advance(1);
    let length = body.try_get_u32().map_err(|_| malformed())? as usize;
    if length != body.remaining() {
        return Err(malformed());
    }
    Ok(body)
}

fn refused(error: &PgWireError, user: &str) -> Error {
    match error {
        PgWireError::InvalidPassword(_) => wrong_password(user),
        other => protocol_violation(&format!("malformed SCRAM message: {other}")),
    }
}

fn unusable(error: &PgWireError) -> Error {
    Error::runtime_failure(format!("the certificate cannot be bound to passwords: {error}"))
}
