//! The output on its way to the tables: a thread beside the work writes a piece while the next one is answered.

use std::sync::mpsc::{self, SyncSender};

use crate::Failure;

/// Does `work`, which hands pieces over, beside a thread that writes them one after the other. Two pieces are in memory: the
/// one that is written, and the one that is made. When this returns, all are written, or it says why they are not. A single piece is worth no thread.
pub(super) fn beside<P: Send>(
    mut write: impl FnMut(P) -> Result<(), Failure> + Send,
    work: impl FnOnce(&mut dyn FnMut(P) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let mut only = None;
        let mut beside = None;
        let write = &mut write;
        let mut idle = Some(write);
        let worked = work(&mut |piece| {
            let Some(first) = only.take() else {
                if let Some((sender, _)) = &beside {
                    return send(sender, piece);
                }
                only = Some(piece);
                return Ok(());
            };
            let (sender, receiver) = mpsc::sync_channel(0);
            let write = idle.take().expect("there is one second piece");
            let writer = scope.spawn(move || receiver.into_iter().try_for_each(write));
            let sent = send(&sender, first).and_then(|()| send(&sender, piece));
            beside = Some((sender, writer));
            sent
        });
        if let Some((sender, writer)) = beside {
            drop(sender);
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        if let (Some(only), Some(write)) = (only, idle) {
            write(only)?;
        }
        worked
    })
}

/// Who is not there to take it has failed, and says why when it is waited for.
fn send<P>(sender: &SyncSender<P>, piece: P) -> Result<(), Failure> {
    sender.send(piece).map_err(|_| Failure::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_in_order_and_all_of_them() {
        let mut written = Vec::new();
        let write = |piece| {
            written.push(piece);
            Ok(())
        };
        beside(write, |hand| (0..100).try_for_each(hand)).unwrap();
        assert_eq!(written, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_piece_is_made_while_one_is_written() {
        let (made, is_made) = mpsc::channel();
        let write = move |piece| {
            if piece == 1 {
                is_made.recv().unwrap();
            }
            Ok(())
        };
        beside(write, |hand| {
            (0..2).try_for_each(&mut *hand)?;
            made.send(()).unwrap();
            hand(2)
        })
        .unwrap();
    }

    #[test]
    fn a_single_piece_is_written_on_the_callers_thread() {
        let here = std::thread::current().id();
        for pieces in 0..3 {
            let mut written = Vec::new();
            let write = |piece| {
                written.push((piece, std::thread::current().id() == here));
                Ok(())
            };
            beside(write, |hand| (0..pieces).try_for_each(hand)).unwrap();
            assert_eq!(written, (0..pieces).map(|piece| (piece, pieces == 1)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn work_stops_where_nothing_can_be_written_and_why_is_said() {
        let write = |piece| if piece < 3 { Ok(()) } else { Err(Failure::op("the disk is full")) };
        let mut handed = 0;
        let failed = beside(write, |hand| {
            loop {
                hand(handed)?;
                handed += 1;
            }
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(handed, 4);
    }

    #[test]
    fn what_is_handed_over_before_work_fails_is_written() {
        let mut written;
        for pieces in [1, 3] {
            written = 0;
            let write = |_| {
                written += 1;
                Ok(())
            };
            let failed = beside(write, |hand| (0..pieces).try_for_each(hand).and(Err(Failure::op("no more"))));
            assert_eq!((failed.unwrap_err().to_string(), written), ("no more".to_owned(), pieces));
        }
    }

    #[test]
    #[should_panic(expected = "the writer")]
    fn a_writer_that_panics_is_not_waited_for() {
        let _ = beside(|()| panic!("the writer"), |hand| (0..3).try_for_each(|_| hand(())));
    }
}
