//! Waits until a question is ours to answer: whoever has the same one at the same time answers it once.
//!
//! Who waits holds no claim meanwhile, so nobody waits in a circle. It waits on a thread of its node, never on one of a pool
//! whose other work the holder might need.

use std::thread::sleep;
use std::time::Duration;

use retort_cache::{Claim, Claimed};

use crate::event::EventKind;
use crate::{Cx, Failure};

/// The first pause between two tries; each is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(2);
/// The longest.
const LONGEST: Duration = Duration::from_millis(100);

/// The claim of the question of `cx` for the node that the store knows as `name`. Until it is had, the answer may have come.
pub(crate) fn wait(name: &str, cx: &Cx<'_>) -> Result<Claim, Failure> {
    let mut pause = SHORTEST;
    loop {
        match cx.world.store.claim(cx.recipe, name)? {
            Claimed::Ours(claim) => {
                if let Some(remark) = claim.remark {
                    cx.note(remark);
                }
                return Ok(claim);
            }
            Claimed::Taken(holder) if pause == SHORTEST => {
                let (node, process) = holder.map(|holder| (holder.node, holder.process)).unzip();
                cx.emit(EventKind::Waiting { holder: node, process });
            }
            Claimed::Taken(_) => {}
        }
        cx.check()?;
        sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}
