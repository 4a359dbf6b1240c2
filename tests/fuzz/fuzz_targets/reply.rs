//! A node's bytes are the same replies however they are cut and whatever part is kept.
//!
//! Input: one byte for the size of the pieces, then the node's bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchman::resp::{ReplyError, ReplyKind, ReplyScanner, Scan};

type Answers = Vec<Result<(ReplyKind, usize), ReplyError>>;

fuzz_target!(|input: &[u8]| {
    let [piece, bytes @ ..] = input else { return };
    let whole = scan(bytes, bytes.len().max(1));
    assert_eq!(whole, scan(bytes, usize::from(*piece).max(1)));
    assert_eq!(whole, scan(bytes, 1));
    // One reply alone is the same reply: nothing of those before it is left in the scanner.
    let mut start = 0;
    for (kind, end) in whole.into_iter().flatten() {
        let alone = ReplyScanner::default().scan(&bytes[start..]);
        assert_eq!(
            alone,
            Ok(Scan::Complete {
                len: end - start,
                kind
            })
        );
        start = end;
    }
});

fn scan(bytes: &[u8], piece: usize) -> Answers {
    let mut scanner = ReplyScanner::default();
    let (mut answers, mut start, mut end, mut earliest) = (Vec::new(), 0, 0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + piece);
        loop {
            match scanner.scan(&bytes[start..end]) {
                Ok(Scan::Complete { len, kind }) => {
                    assert!(len > 0 && earliest <= start + len);
                    start += len;
                    answers.push(Ok((kind, start)));
                }
                Ok(Scan::Partial { len, missing }) => {
                    assert!(missing > 0);
                    start += len;
                    assert!(start <= end);
                    earliest = end.saturating_add(missing);
                    break;
                }
                Err(refusal) => {
                    answers.push(Err(refusal));
                    return answers;
                }
            }
        }
    }
    answers
}
