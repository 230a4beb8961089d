//! Which topic it is that has a name: Kafka gives each an id of its own, which the library tells only in C.

use std::ffi::CString;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use rdkafka::bindings as raw;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// A pointer that is let go of at its end.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self { pointer: NonNull::new(pointer)?, destroy })
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the library together with the function that lets go of it, and is used nowhere
        // after this.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}

/// The id of a topic, as 22 letters, which this broker is asked for. `None` if the broker does not tell it: versions before 2.8 have none.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    broker: i32,
    wait: Duration,
) -> Result<Option<String>, RDKafkaErrorCode> {
    let Ok(name) = CString::new(topic) else { return Ok(None) };
    let mut names = [name.as_ptr()];
    // SAFETY: the array and the name live to the end of the call, which copies both.
    let topics = unsafe { raw::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) };
    let topics = Owned::new(topics, raw::rd_kafka_TopicCollection_destroy).ok_or(RDKafkaErrorCode::Fail)?;
    // SAFETY: the client is alive for as long as it is borrowed, and so in all calls below.
    let queue = unsafe { raw::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Owned::new(queue, raw::rd_kafka_queue_destroy).ok_or(RDKafkaErrorCode::Fail)?;
    // SAFETY: as above.
    let options = unsafe {
        raw::rd_kafka_AdminOptions_new(client.native_ptr(), raw::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)
    };
    let options = Owned::new(options, raw::rd_kafka_AdminOptions_destroy).ok_or(RDKafkaErrorCode::Fail)?;
    let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the options are alive, and nothing is written where no room is given.
    unsafe {
        raw::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), milliseconds, std::ptr::null_mut(), 0);
        // Otherwise the controller is asked, which brokers may not know just now.
        raw::rd_kafka_AdminOptions_set_broker(options.as_ptr(), broker, std::ptr::null_mut(), 0);
    }
    // SAFETY: all of these are alive, and the call copies what it needs; its answer comes into the queue.
    unsafe {
        raw::rd_kafka_DescribeTopics(client.native_ptr(), topics.as_ptr(), options.as_ptr(), queue.as_ptr());
    }
    let until = Instant::now() + wait + Duration::from_secs(1);
    while Instant::now() < until {
        // SAFETY: the queue is alive.
        let event = unsafe { raw::rd_kafka_queue_poll(queue.as_ptr(), milliseconds) };
        let Some(event) = Owned::new(event, raw::rd_kafka_event_destroy) else { continue };
        // SAFETY: the event is alive.
        let error = unsafe { raw::rd_kafka_event_error(event.as_ptr()) };
        if error != raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        // SAFETY: the event is alive; of another kind, the answer is null.
        let result = unsafe { raw::rd_kafka_event_DescribeTopics_result(event.as_ptr()) };
        if result.is_null() {
            continue;
        }
        let mut count = 0;
        // SAFETY: the result lives as long as its event, and the list has as many entries as `count` says.
        let first = unsafe {
            let list = raw::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if count == 0 || list.is_null() { std::ptr::null() } else { *list }
        };
        return if first.is_null() { Ok(None) } else { described(first) };
    }
    Err(RDKafkaErrorCode::OperationTimedOut)
}

/// `description` lives as long as its event, which the caller holds.
fn described(description: *const raw::rd_kafka_TopicDescription_t) -> Result<Option<String>, RDKafkaErrorCode> {
    // SAFETY: the description is not null and alive.
    let error = unsafe { raw::rd_kafka_TopicDescription_error(description) };
    if !error.is_null() {
        // SAFETY: the error lives as long as its description.
        let code = unsafe { raw::rd_kafka_error_code(error) };
        if code != raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(code.into());
        }
    }
    // SAFETY: as above.
    let id = unsafe { raw::rd_kafka_TopicDescription_topic_id(description) };
    if id.is_null() {
        return Ok(None);
    }
    // SAFETY: the id lives as long as its description, and its text as long as the id.
    let (most, least, text) = unsafe {
        (
            raw::rd_kafka_Uuid_most_significant_bits(id),
            raw::rd_kafka_Uuid_least_significant_bits(id),
            raw::rd_kafka_Uuid_base64str(id),
        )
    };
    if (most, least) == (0, 0) || text.is_null() {
        return Ok(None);
    }
    // SAFETY: a text of the library ends with a null byte, and is alive.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    Ok(Some(text.to_string_lossy().into_owned()))
}
