//! A client's bytes are the same requests however they are cut, and each has one form only; what
//! is seen early is what is decoded then.
//!
//! Input: one byte for the limits, one for the size of the pieces, then the client's bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchman::resp::{Decoded, Request, RequestDecoder, RequestError, RequestLimits, encode};

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Request { args: Vec<Vec<u8>>, end: usize },
    Nothing { end: usize },
    Refused(RequestError),
}

fuzz_target!(|input: &[u8]| {
    let [limits, piece, bytes @ ..] = input else {
        return;
    };
    let limits = match limits % 3 {
        0 => RequestLimits::AUTHENTICATED,
        1 => RequestLimits::UNAUTHENTICATED,
        _ => RequestLimits {
            max_args: 3,
            max_bulk: 5,
            authenticated: true,
        },
    };
    let whole = decode(bytes, bytes.len().max(1), &limits);
    assert_eq!(whole, decode(bytes, usize::from(*piece).max(1), &limits));
    assert_eq!(whole, decode(bytes, 1, &limits));
});

fn decode(bytes: &[u8], piece: usize, limits: &RequestLimits) -> Vec<Frame> {
    let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
    let (mut frames, mut start, mut end, mut earliest) = (Vec::new(), 0, 0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + piece);
        loop {
            let seen = decoder.look_ahead(&bytes[start..end], limits);
            let seen = seen.map(|(request, len)| (request.raw(), len));
            let decoded = decoder.decode(&bytes[start..end], limits, &mut inline);
            assert!(seen.is_none() || matches!(decoded, Ok(Decoded::Request { .. })));
            match decoded {
                Ok(Decoded::Request { request, consumed }) => {
                    assert!(consumed > 0 && earliest <= end);
                    assert!(seen.is_none_or(|seen| seen == (request.raw(), consumed)));
                    start += consumed;
                    frames.push(Frame::Request {
                        args: checked(request),
                        end: start,
                    });
                }
                Ok(Decoded::Nothing { consumed }) => {
                    assert!(consumed > 0);
                    start += consumed;
                    frames.push(Frame::Nothing { end: start });
                }
                Ok(Decoded::Incomplete { missing }) => {
                    assert!(missing > 0);
                    earliest = end.saturating_add(missing);
                    break;
                }
                Err(refusal) => {
                    let mut line = Vec::new();
                    refusal.reply(&mut line);
                    assert!(
                        line.ends_with(b"\r\n")
                            && line.iter().filter(|b| **b == b'\n').count() == 1
                    );
                    frames.push(Frame::Refused(refusal));
                    return frames;
                }
            }
        }
    }
    frames
}

/// The arguments of `request`, whose raw bytes must be what encoding them gives.
fn checked(request: Request<'_>) -> Vec<Vec<u8>> {
    let args: Vec<&[u8]> = request.args().collect();
    assert_eq!(args.len(), request.argc());
    assert_eq!(args.first(), Some(&request.name()));
    assert_eq!(args.get(1).copied(), request.arg1());
    let mut raw = Vec::new();
    encode::request(&mut raw, &args);
    assert_eq!(raw, request.raw());
    let again = Request::from_raw(request.raw()).expect("an accepted request is one");
    assert!(again.args().eq(request.args()));
    args.into_iter().map(<[u8]>::to_vec).collect()
}
