//! Whatever a peer sends, decoding ends without a panic; and what was decoded is written and read again as it was.
#![no_main]

use ashlar_core::buf::BufPool;
use ashlar_core::wire::handshake::Hello;
use ashlar_core::wire::{FRAME_BYTES, FrameHeader, Inbox, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Hello::decode(data);
    let mut bufs = BufPool::new();
    let mut inbox = Inbox::default();
    let mut rest = data;
    while !rest.is_empty() {
        let space = inbox.space();
        let count = space.len().min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        inbox.received(count);
        rest = &rest[count..];
        loop {
            match inbox.next(&mut bufs) {
                Ok(Some(message)) => reads_back(&message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn reads_back(message: &ashlar_core::msg::Message) {
    let mut bytes = Vec::new();
    let body = encode(message, &mut bytes);
    let frame = FrameHeader::parse(bytes.first_chunk().expect("a whole frame")).expect("just written");
    let again = decode(&frame, &bytes[FRAME_BYTES..], body.map(|data| data.buf));
    assert_eq!(again.as_ref(), Ok(message));
}
