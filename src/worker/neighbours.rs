//! Floor 5. The workers among themselves: questions about clients, which are spread over all of
//! them. Bounded, and nobody waits for room: what does not fit is not asked, or not answered.

use tokio::sync::mpsc;

use crate::exchange::{Answer, CALLS_MAX, Question};

/// Notes on their way to one worker, from each of the others: its questions, and its answers.
const NOTES_EACH: usize = 2 * CALLS_MAX;

/// What one worker sends another.
#[derive(Debug)]
pub(super) enum Note {
    /// By the worker with this number.
    Question(usize, Question),
    /// To a question of the one that gets it.
    Answer(Answer),
}

/// The way from one worker to the others, and back.
#[derive(Debug)]
pub struct Neighbours {
    worker: usize,
    /// To all of them, by their numbers.
    ways: Vec<mpsc::Sender<Note>>,
    heard: Option<mpsc::Receiver<Note>>,
}

/// For so many workers.
pub fn neighbours(workers: usize) -> Vec<Neighbours> {
    let room = NOTES_EACH * workers.max(1);
    let (ways, heard): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(room)).unzip();
    let one = |(worker, heard)| Neighbours {
        worker,
        ways: ways.clone(),
        heard: Some(heard),
    };
    heard.into_iter().enumerate().map(one).collect()
}

impl Neighbours {
    /// What comes from the others; once.
    pub(super) const fn hear(&mut self) -> Option<mpsc::Receiver<Note>> {
        self.heard.take()
    }

    /// Asks the others. Returns how many are not there any more.
    pub(super) fn ask(&self, question: &Question) -> usize {
        let others = self.ways.iter().enumerate();
        let others = others.filter(|(at, _)| *at != self.worker);
        let gone = others.filter(|(_, way)| {
            let note = Note::Question(self.worker, question.clone());
            // One that is full has not come round for long, and is not waited for for ever.
            matches!(
                way.try_send(note),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
        gone.count()
    }

    /// Answers one of them.
    pub(super) fn answer(&self, asker: usize, answer: Answer) {
        if let Some(way) = self.ways.get(asker) {
            // One that is gone, or full of other answers, does not wait for this one.
            let _ = way.try_send(Note::Answer(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(of: &mut Neighbours) -> mpsc::Receiver<Note> {
        of.hear().unwrap()
    }

    #[test]
    fn a_question_reaches_all_others_and_an_answer_who_has_asked() {
        let mut all = neighbours(3);
        let mut heard: Vec<_> = all.iter_mut().map(heard).collect();
        let question = Question::default();
        assert_eq!(all[1].ask(&question), 0);
        assert!(heard[1].try_recv().is_err(), "not itself");
        for at in [0, 2] {
            assert!(matches!(heard[at].try_recv(), Ok(Note::Question(1, _))));
            all[at].answer(1, Answer::nothing(&question));
            assert!(matches!(heard[1].try_recv(), Ok(Note::Answer(_))));
            assert!(heard[at].try_recv().is_err(), "once");
        }
    }

    #[test]
    fn who_is_gone_is_not_waited_for_and_who_is_full_does_not_hold_up_anybody() {
        let mut all = neighbours(3);
        let mut heard: Vec<_> = all.iter_mut().map(heard).collect();
        drop(heard.pop());
        for _ in 0..1_000 {
            assert_eq!(all[0].ask(&Question::default()), 1);
        }
        let mut notes = 0;
        while heard[1].try_recv().is_ok() {
            notes += 1;
        }
        assert_eq!(notes, NOTES_EACH * 3);
        assert_eq!(neighbours(1)[0].ask(&Question::default()), 0);
    }
}
