//! The output on its way to the tables: a thread beside the work writes a piece while the next one is answered.

use std::sync::mpsc;

use crate::Failure;

/// Does `work`, which hands pieces over, beside a thread that writes them one after the other. Two pieces are in memory: the
/// one that is written, and the one that is made. When this returns, all are written, or it says why they are not.
pub(super) fn beside<P: Send>(
    write: impl FnMut(P) -> Result<(), Failure> + Send,
    work: impl FnOnce(&dyn Fn(P) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        let writer = scope.spawn(move || receiver.into_iter().try_for_each(write));
        // Nobody takes it: the writer has failed and says why below.
        let worked = work(&|piece| sender.send(piece).map_err(|_| Failure::Cancelled));
        drop(sender);
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        worked
    })
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
            if piece == 0 {
                is_made.recv().unwrap();
            }
            Ok(())
        };
        beside(write, |hand| {
            hand(0)?;
            made.send(()).unwrap();
            hand(1)
        })
        .unwrap();
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
        let mut written = 0;
        let write = |()| {
            written += 1;
            Ok(())
        };
        let failed = beside(write, |hand| hand(()).and(Err(Failure::op("no more"))));
        assert_eq!((failed.unwrap_err().to_string(), written), ("no more".to_owned(), 1));
    }

    #[test]
    #[should_panic(expected = "the writer")]
    fn a_writer_that_panics_is_not_waited_for() {
        let _ = beside(|()| panic!("the writer"), |hand| (0..3).try_for_each(|_| hand(())));
    }
}
