//! A model behind the part of OpenAI's HTTP interface that chats and tools use, on this machine's own address.
//!
//! What requests and replies look like is in `api`, HTTP in `http`. Here: one thread writes all texts, side by side, as `prompt-llm` does; requests come to
//! it from the HTTP side and pieces of text go back. Async code ends at `http`.

mod api;
mod http;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use retort_lm::LmError;
use retort_lm::generate::{self, Event, Finished, Flow, Limits, Next, Request};
use retort_lm::lora::Adapter;
use retort_ops::models::LoadedModel;
use tokio::sync::mpsc::UnboundedSender;

/// A model that is to be served.
pub struct Served {
    /// What clients call it.
    pub name: String,
    /// Weights, tokenizer and template.
    pub loaded: Arc<LoadedModel>,
    /// What was trained on top, if it is to take part.
    pub adapter: Option<Adapter>,
    /// What its texts may take, side by side.
    pub limits: Limits,
}

/// What a request's texts come to, bit by bit.
#[derive(Debug)]
enum Piece {
    /// Choice `.0` grew by this text.
    Text(usize, String),
    /// Choice `.0` has ended.
    Finished(usize, Box<Finished>),
}

/// A text to be written: choice `choice` of a request, whose pieces go to `pieces`.
struct Job {
    choice: usize,
    request: Request,
    pieces: UnboundedSender<Piece>,
}

/// Answers what comes in at `listener`, until the process ends.
///
/// # Errors
/// The address cannot be listened at, or the model fails.
pub fn serve(served: Served, listener: TcpListener) -> io::Result<()> {
    let (jobs, coming) = mpsc::channel();
    let served = Arc::new(served);
    let writing = Arc::clone(&served);
    let writer = std::thread::spawn(move || write(&writing, &coming));
    let done = http::listen(&served, jobs, listener);
    let written = writer.join().map_err(|_| io::Error::other("the thread that writes texts panicked"))?;
    done.and(written.map_err(io::Error::other))
}

/// Writes what comes, until nobody can send more.
fn write(served: &Served, coming: &Receiver<Job>) -> Result<(), LmError> {
    let Served { loaded, adapter, limits, .. } = served;
    let listeners = std::cell::RefCell::new(BTreeMap::new());
    let mut number = 0;
    let mut next = |idle: bool| {
        let job = if idle {
            coming.recv().map_err(|_| true)
        } else {
            coming.try_recv().map_err(|e| e == mpsc::TryRecvError::Disconnected)
        };
        match job {
            Ok(Job { choice, request, pieces }) => {
                number += 1;
                listeners.borrow_mut().insert(number, (choice, pieces));
                Next::Request(number, Box::new(request))
            }
            Err(true) => Next::End,
            Err(false) => Next::Nothing,
        }
    };
    let mut on_event = |event| {
        let mut listeners = listeners.borrow_mut();
        let index = match &event {
            Event::Step { .. } => return Flow::Continue,
            Event::Text { index, .. } => *index,
            Event::Finished(finished) => finished.index,
        };
        let Some((choice, pieces)) = listeners.get(&index) else { return Flow::Drop };
        let piece = match event {
            Event::Text { text, .. } => Piece::Text(*choice, text),
            Event::Finished(finished) => Piece::Finished(*choice, Box::new(finished)),
            Event::Step { .. } => return Flow::Continue,
        };
        let is_last = matches!(piece, Piece::Finished(..));
        let heard = pieces.send(piece).is_ok();
        if is_last || !heard {
            listeners.remove(&index);
        }
        if heard { Flow::Continue } else { Flow::Drop }
    };
    generate::serve(&loaded.model, &loaded.tokenizer, adapter.as_ref(), *limits, &mut next, &mut on_event)
}
