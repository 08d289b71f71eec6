//! Requests that come while others are written: what a server does.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::prefix::common;
use super::row::Row;
use super::{Batch, Limits, OnEvent, Request, check};
use crate::{LmError, kv::KvCache, lora::Adapter, model::Model, tokenizer::Tokenizer};

/// What is to be done next.
#[derive(Debug)]
pub enum Next {
    /// This request is to be answered; events name it by the number.
    Request(usize, Box<Request>),
    /// Nothing new.
    Nothing,
    /// No request will come; what is under way is thrown away.
    End,
}

/// Ended texts whose keys and values are kept, for the next turn of a conversation.
const KEPT: usize = 8;
/// The share of the bytes for keys and values that they may take, on top.
const KEPT_SHARE: usize = 4;

/// Writes a text for every request that `next` gives, many side by side, first come, first let in. `next` is told whether there is nothing to do: then it may wait.
///
/// A text is that of [`generate`](super::generate): what came before it, and what is beside it, change nothing.
///
/// # Errors
/// As [`generate`](super::generate).
pub fn serve(
    model: &Model,
    tokenizer: &Tokenizer,
    adapter: Option<&Adapter>,
    limits: Limits,
    next: &mut dyn FnMut(bool) -> Next,
    on_event: OnEvent<'_>,
) -> Result<(), LmError> {
    let base = model.cache();
    let mut batch = Batch { model, tokenizer, adapter, limits, base, rows: Vec::new(), keeps: true, left: Vec::new() };
    let mut waiting: VecDeque<(usize, Box<Request>)> = VecDeque::new();
    let mut kept = Kept(VecDeque::new());
    loop {
        loop {
            match next(batch.rows.is_empty() && waiting.is_empty()) {
                Next::Request(index, request) => {
                    check(model, [&*request])?;
                    waiting.push_back((index, request));
                }
                Next::Nothing => break,
                Next::End => return Ok(()),
            }
        }
        while let Some((_, request)) = waiting.front()
            && let Some(cache) = batch.let_in(request)
        {
            let cache = kept.longer_than(cache, request);
            let Some((index, request)) = waiting.pop_front() else { break };
            batch.rows.push(Row::new(index, Cow::Owned(*request), cache, tokenizer));
        }
        if !batch.rows.is_empty() {
            batch.step(on_event)?;
            kept.take(&mut batch);
        }
    }
}

/// Tokens that were run, with their keys and values, the newest first.
struct Kept(VecDeque<(Vec<u32>, KvCache)>);

impl Kept {
    /// What is known of the beginning of a request: `cache`, or more.
    fn longer_than(&self, cache: KvCache, request: &Request) -> KvCache {
        let own = &request.prompt[..request.prompt.len() - 1];
        let alike = self.0.iter().map(|(tokens, cache)| (common(tokens, own), cache));
        match alike.max_by_key(|&(length, _)| length) {
            Some((length, known)) if length > cache.len() => {
                let mut known = known.fork();
                known.truncate(length);
                known
            }
            _ => cache,
        }
    }

    fn take(&mut self, batch: &mut Batch<'_>) {
        for left in batch.left.drain(..) {
            self.0.push_front(left);
        }
        self.0.truncate(KEPT);
        let mut room = batch.limits.cache_bytes / KEPT_SHARE;
        let fits = |(_, cache): &(Vec<u32>, KvCache)| {
            let left = room.checked_sub(cache.bytes(cache.len()));
            room = left.unwrap_or(0);
            left.is_some()
        };
        self.0.retain(fits);
    }
}
