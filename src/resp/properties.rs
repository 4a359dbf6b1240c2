//! Floor 0. Tests of the grammar as a whole, against parsers too simple to be wrong.
//! Knows the public face of the module only.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that slices out of bounds fails, as it should"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::resp::{
    Decoded, LINE_MAX, ReplyKind, ReplyScanner, RequestDecoder, RequestError, RequestLimits, Scan,
    encode,
};

/// Small enough that generated requests cross them.
const LIMITS: RequestLimits = RequestLimits {
    max_args: 30,
    max_bulk: 40,
    authenticated: true,
};

/// What a client's bytes are, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Request { args: Vec<Vec<u8>>, end: usize },
    Nothing { end: usize },
    Refused(RequestError),
}

/// What a node's bytes are, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Whole { kind: ReplyKind, end: usize },
    Refused,
}

/// Decodes `bytes` as they come in when cut at `cuts`.
fn decode(bytes: &[u8], cuts: &[usize]) -> Vec<Frame> {
    let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
    let (mut frames, mut start, mut earliest) = (Vec::new(), 0, 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            match decoder.decode(&bytes[start..end], &LIMITS, &mut inline) {
                Ok(Decoded::Request { request, consumed }) => {
                    assert!(earliest <= end, "whole before the bytes said to be missing");
                    let args: Vec<_> = request.args().map(<[u8]>::to_vec).collect();
                    assert_eq!(args.len(), request.argc());
                    assert_eq!(args[0], request.name());
                    assert_eq!(args.get(1).map(Vec::as_slice), request.arg1());
                    let mut raw = Vec::new();
                    encode::request(
                        &mut raw,
                        &args.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                    );
                    assert_eq!(raw, request.raw(), "accepted bytes have one form only");
                    start += consumed;
                    frames.push(Frame::Request { args, end: start });
                }
                Ok(Decoded::Nothing { consumed }) => {
                    start += consumed;
                    frames.push(Frame::Nothing { end: start });
                }
                Ok(Decoded::Incomplete { missing }) => {
                    assert!(missing > 0);
                    earliest = end + missing;
                    break;
                }
                Err(refusal) => {
                    frames.push(Frame::Refused(refusal));
                    return frames;
                }
            }
        }
    }
    frames
}

/// Scans `bytes` as they come in when cut at `cuts`.
fn scan(bytes: &[u8], cuts: &[usize]) -> Vec<Answer> {
    let mut scanner = ReplyScanner::default();
    let (mut answers, mut start, mut earliest) = (Vec::new(), 0, 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            match scanner.scan(&bytes[start..end]) {
                Ok(Scan::Complete { len, kind }) => {
                    start += len;
                    assert!(
                        earliest <= start,
                        "whole before the bytes said to be missing"
                    );
                    answers.push(Answer::Whole { kind, end: start });
                }
                Ok(Scan::Partial { len, missing }) => {
                    assert!(missing > 0);
                    start += len;
                    assert!(start <= end);
                    earliest = end + missing;
                    break;
                }
                Err(_) => {
                    answers.push(Answer::Refused);
                    return answers;
                }
            }
        }
    }
    answers
}

/// The line at the front of `buf` without its end, and what is behind it; `None` without an end.
fn line(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = buf.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&buf[..end], &buf[end + 2..]))
}

/// A number in the one form that printing it gives.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse()
        .ok()
        .filter(|number: &i64| number.to_string() == text)
}

/// The frames of `bytes` by a parser that reads each from its start; errors are not told apart.
fn frames_of(bytes: &[u8]) -> Vec<Option<(Vec<Vec<u8>>, usize)>> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    loop {
        let frame = if rest.starts_with(b"*") {
            array_of(rest)
        } else {
            inline_of(rest)
        };
        match frame {
            Ok(Some((args, behind))) => {
                rest = behind;
                frames.push(Some((args, bytes.len() - rest.len())));
            }
            Ok(None) => return frames,
            Err(()) => {
                frames.push(None);
                return frames;
            }
        }
    }
}

type Framed<'a> = Result<Option<(Vec<Vec<u8>>, &'a [u8])>, ()>;

fn header_of(buf: &[u8], lead: u8) -> Result<Option<(i64, &[u8])>, ()> {
    let Some(end) = buf.iter().position(|byte| *byte == b'\r') else {
        return Ok(None);
    };
    if buf[0] != lead {
        return Err(());
    }
    let value = number(&buf[1..end]).ok_or(())?;
    match buf[end + 1..].first() {
        Some(b'\n') => Ok(Some((value, &buf[end + 2..]))),
        Some(_) => Err(()),
        None => Ok(None),
    }
}

fn array_of(buf: &[u8]) -> Framed<'_> {
    let Some((count, mut rest)) = header_of(buf, b'*')? else {
        return Ok(None);
    };
    if count > 30 {
        return Err(());
    }
    let mut args = Vec::new();
    for _ in 0..count {
        let Some((length, body)) = header_of(rest, b'$')? else {
            return Ok(None);
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= 40)
            .ok_or(())?;
        if body.len() < length || b"\r\n".starts_with(&body[length..]) && body.len() < length + 2 {
            return Ok(None);
        }
        if !body[length..].starts_with(b"\r\n") {
            return Err(());
        }
        args.push(body[..length].to_vec());
        rest = &body[length + 2..];
    }
    Ok(Some((args, rest)))
}

fn inline_of(buf: &[u8]) -> Framed<'_> {
    let Some(end) = buf.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
    Ok(Some((words_of(line).ok_or(())?, &buf[end + 1..])))
}

/// The words of an inline command, by a walk over the line as `sdssplitargs` does it.
fn words_of(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let space = |at: usize| {
        line.get(at)
            .is_some_and(|byte| b" \t\n\r\x0b\x0c".contains(byte))
    };
    let (mut words, mut at) = (Vec::new(), 0);
    loop {
        while space(at) {
            at += 1;
        }
        if at == line.len() {
            return Some(words);
        }
        let (mut word, mut quote) = (Vec::new(), None);
        loop {
            match (quote, line.get(at).copied()) {
                (None, None | Some(b' ' | b'\n' | b'\r' | b'\t')) => break,
                (None, Some(mark @ (b'"' | b'\''))) => quote = Some(mark),
                (Some(_), None) => return None,
                (Some(mark), Some(byte)) if mark == byte => {
                    if at + 1 < line.len() && !space(at + 1) {
                        return None;
                    }
                    at += 1;
                    break;
                }
                (Some(b'\''), Some(b'\\')) if line.get(at + 1) == Some(&b'\'') => {
                    word.push(b'\'');
                    at += 1;
                }
                (Some(b'"'), Some(b'\\')) if at + 1 < line.len() => {
                    let hex = line
                        .get(at + 2..at + 4)
                        .and_then(|hex| std::str::from_utf8(hex).ok());
                    let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
                    if let Some(hex) = hex.filter(|_| line[at + 1] == b'x') {
                        word.push(u8::from_str_radix(hex, 16).unwrap());
                        at += 3;
                    } else {
                        let plain = b"nrtba".iter().position(|byte| *byte == line[at + 1]);
                        word.push(plain.map_or(line[at + 1], |plain| b"\n\r\t\x08\x07"[plain]));
                        at += 1;
                    }
                }
                (_, Some(byte)) => word.push(byte),
            }
            at += 1;
        }
        words.push(word);
    }
}

/// The value at the front of `buf`, by recursion; `None` if it is not whole.
fn value_of(buf: &[u8]) -> Result<Option<(ReplyKind, &[u8])>, ()> {
    let (Some(lead), Some((head, rest))) = (buf.first(), line(buf)) else {
        return Ok(None);
    };
    let text = head.get(1..).ok_or(())?;
    let length = number(text);
    let scalar = |kind| Ok(Some((kind, rest)));
    match (lead, length) {
        (b'+', _) => scalar(ReplyKind::Simple),
        (b'-', _) => scalar(ReplyKind::Error),
        (b',', _) => scalar(ReplyKind::Double),
        (b'(', _) => scalar(ReplyKind::BigNumber),
        (b':', Some(_)) => scalar(ReplyKind::Integer),
        (b'_', _) if text.is_empty() => scalar(ReplyKind::Null),
        (b'#', _) if text == b"t" || text == b"f" => scalar(ReplyKind::Boolean),
        (b'$', Some(-1)) => scalar(ReplyKind::NullBulk),
        (b'*', Some(-1)) => scalar(ReplyKind::NullArray),
        (b'$', Some(length)) => bulk_of(ReplyKind::Bulk, length, rest),
        (b'=', Some(length)) => bulk_of(ReplyKind::Verbatim, length, rest),
        (b'!', Some(length)) => bulk_of(ReplyKind::BulkError, length, rest),
        (b'*', Some(count)) => values_of(ReplyKind::Array, count, rest),
        (b'~', Some(count)) => values_of(ReplyKind::Set, count, rest),
        (b'>', Some(count)) => values_of(ReplyKind::Push, count, rest),
        (b'%', Some(count)) => values_of(ReplyKind::Map, count.saturating_mul(2), rest),
        (b'|', Some(count)) => match values_of(ReplyKind::Map, count.saturating_mul(2), rest)? {
            Some((_, behind)) => value_of(behind),
            None => Ok(None),
        },
        _ => Err(()),
    }
}

fn bulk_of(kind: ReplyKind, length: i64, rest: &[u8]) -> Result<Option<(ReplyKind, &[u8])>, ()> {
    let length = usize::try_from(length).map_err(|_| ())?;
    match rest
        .get(length..)
        .map(|tail| (tail, tail.strip_prefix(b"\r\n")))
    {
        Some((_, Some(behind))) => Ok(Some((kind, behind))),
        Some((tail, None)) if !b"\r\n".starts_with(tail) => Err(()),
        _ => Ok(None),
    }
}

fn values_of(
    kind: ReplyKind,
    count: i64,
    mut rest: &[u8],
) -> Result<Option<(ReplyKind, &[u8])>, ()> {
    if !(0..1 << 32).contains(&count) {
        return Err(());
    }
    for _ in 0..count {
        let Some((_, behind)) = value_of(rest)? else {
            return Ok(None);
        };
        rest = behind;
    }
    Ok(Some((kind, rest)))
}

/// A reply of any shape and depth.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let text = vec(select(b"ab \r".as_slice()), 0..6);
    let leaf = prop_oneof![
        (select(b"+-,(".as_slice()), text).prop_map(|(lead, mut text)| {
            text.retain(|byte| *byte != b'\r' || lead == b'+');
            [&[lead], &text[..], b"\r\n"].concat()
        }),
        any::<i64>().prop_map(|value| format!(":{value}\r\n").into_bytes()),
        (select(b"$=!".as_slice()), vec(any::<u8>(), 0..20)).prop_map(|(lead, body)| {
            let head = format!("{}{}\r\n", char::from(lead), body.len());
            [head.as_bytes(), &body, b"\r\n"].concat()
        }),
        select(
            [
                "+OK\r\n", "$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", "#f\r\n", "*0\r\n", "%0\r\n"
            ]
            .as_slice()
        )
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            (select(b"*~>".as_slice()), vec(inner.clone(), 0..6)).prop_map(|(lead, elements)| {
                let head = format!("{}{}\r\n", char::from(lead), elements.len());
                [head.as_bytes(), &elements.concat()].concat()
            }),
            vec((inner.clone(), inner.clone()), 0..3).prop_map(|pairs| map_of('%', &pairs)),
            (vec((inner.clone(), inner.clone()), 0..3), inner).prop_map(|(pairs, value)| [
                map_of('|', &pairs),
                value
            ]
            .concat()),
        ]
    })
}

fn map_of(lead: char, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let head = format!("{lead}{}\r\n", pairs.len()).into_bytes();
    pairs
        .iter()
        .fold(head, |map, (key, value)| [&map[..], key, value].concat())
}

/// A request, array or inline, or something that is skipped.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let word = select(
        [
            "GET",
            "k",
            "\"a b\"",
            "'c\\'d'",
            "\"\\x41\\n\"",
            "\x0b",
            "x\"y\"",
            "\"\"",
            "\"",
            "é",
        ]
        .as_slice(),
    );
    prop_oneof![
        8 => vec(vec(any::<u8>(), 0..42), 1..8).prop_map(|args| {
            let mut out = Vec::new();
            encode::request(&mut out, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
            out
        }),
        3 => (vec(word, 0..5), select(["\n", "\r\n", "\r\r\n"].as_slice()))
            .prop_map(|(words, end)| (words.join(" ") + end).into_bytes()),
        1 => select(["*0\r\n", "*-1\r\n", "*-5\r\n", "\r\n", "\n", "*31\r\n"].as_slice())
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// Bytes that look like the protocol at every step and are mostly wrong.
fn noise(alphabet: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => select(alphabet).prop_map(|byte| vec![byte]),
        3 => Just(b"\r\n".to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Some of `frames` in a row, at times with one byte changed, lost or added.
fn damaged(frames: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = (0..6_u8, any::<Index>(), any::<u8>());
    (vec(frames, 0..5), damage).prop_map(|(frames, (how, place, byte))| {
        let mut bytes = frames.concat();
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => drop(bytes.remove(place)),
                2 => bytes.insert(place, byte),
                3 => bytes.truncate(place),
                _ => {}
            }
        }
        bytes
    })
}

fn cut(bytes: &[u8], places: &[Index]) -> Vec<usize> {
    let mut cuts: Vec<_> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    cuts.sort_unstable();
    cuts
}

fn check_requests(bytes: &[u8], places: &[Index]) {
    let whole = decode(bytes, &[]);
    assert_eq!(decode(bytes, &cut(bytes, places)), whole);
    assert_eq!(decode(bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole);
    let plain: Vec<_> = whole
        .into_iter()
        .map(|frame| match frame {
            Frame::Request { args, end } => Some((args, end)),
            Frame::Nothing { end } => Some((Vec::new(), end)),
            Frame::Refused(_) => None,
        })
        .collect();
    assert_eq!(plain, frames_of(bytes));
}

fn check_replies(bytes: &[u8], places: &[Index]) {
    let whole = scan(bytes, &[]);
    assert_eq!(scan(bytes, &cut(bytes, places)), whole);
    assert_eq!(scan(bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole);
    let mut rest = bytes;
    for answer in &whole {
        let expected = value_of(rest);
        match *answer {
            Answer::Whole { kind, end } => {
                rest = &bytes[end..];
                assert_eq!(expected, Ok(Some((kind, rest))));
            }
            // The scanner need not wait for the end of a line that has gone wrong.
            Answer::Refused => return assert!(!matches!(expected, Ok(Some(_)))),
        }
    }
    assert_eq!(value_of(rest), Ok(None));
}

proptest! {
    #[test]
    fn requests_are_the_same_however_they_are_cut(
        bytes in damaged(request()), places in vec(any::<Index>(), 0..8)
    ) {
        check_requests(&bytes, &places);
    }

    #[test]
    fn noise_from_a_client_is_the_same_however_it_is_cut(
        bytes in noise(b"**$$0123459-\"'\\x ab\r\n"), places in vec(any::<Index>(), 0..8)
    ) {
        check_requests(&bytes, &places);
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut(
        bytes in damaged(reply()), places in vec(any::<Index>(), 0..8)
    ) {
        check_replies(&bytes, &places);
    }

    #[test]
    fn noise_from_a_node_is_the_same_however_it_is_cut(
        bytes in noise(b"+-:$*_#,(!=%~|>?;.0123459tf-\r\n"), places in vec(any::<Index>(), 0..8)
    ) {
        check_replies(&bytes, &places);
    }

    #[test]
    fn an_undamaged_reply_is_one_reply(bytes in reply()) {
        let end = bytes.len();
        let answers = scan(&bytes, &[]);
        let one = matches!(answers[..], [Answer::Whole { end: found, .. }] if found == end);
        prop_assert!(one, "{:?}", answers);
    }

    #[test]
    fn long_lines_are_the_same_however_they_are_cut(
        start in select(["a", "*", "*x", "*1\r\n", "*1\r\n$", "*2\r\n$0\r\n\r\n$1"].as_slice()),
        length in LINE_MAX - 8..LINE_MAX + 8,
        end in select(["\r\n", "\n", "\r", ""].as_slice()),
        places in vec(any::<Index>(), 0..4),
    ) {
        let bytes = [start.as_bytes(), &vec![b'7'; length], end.as_bytes()].concat();
        let whole = decode(&bytes, &[]);
        prop_assert_eq!(decode(&bytes, &cut(&bytes, &places)), whole);
        for lead in [&b"+"[..], b"*2\r\n-", b","] {
            let bytes = [lead, &bytes[start.len()..], b"_\r\n"].concat();
            prop_assert_eq!(scan(&bytes, &cut(&bytes, &places)), scan(&bytes, &[]));
        }
    }
}

#[test]
fn what_redis_skips_gets_no_answer() {
    let frames = decode(b"*0\r\n*-1\r\n\r\n*-5\r\n\n  \r\nPING\r\n", &[]);
    let (last, skipped) = frames.split_last().expect("frames");
    assert!(
        skipped
            .iter()
            .all(|frame| matches!(frame, Frame::Nothing { .. }))
    );
    assert_eq!(skipped.len(), 6);
    assert_eq!(
        last,
        &Frame::Request {
            args: vec![b"PING".to_vec()],
            end: 27
        }
    );
}

#[test]
fn requests_before_an_error_are_delivered() {
    let frames = decode(b"PING\r\n*1\r\n$4\r\nPING\r\n*03\r\n", &[]);
    assert!(matches!(
        frames[..2],
        [Frame::Request { .. }, Frame::Request { .. }]
    ));
    assert_eq!(frames[2..], [Frame::Refused(RequestError::InvalidCount)]);
}
