//! Bodies: stored once a shard, counted by who refers to them.

use postrider_api::id::BodyId;
use postrider_api::pb::{BodyHead, BodyRecord, Refusal};

use crate::key::Key;
use crate::mailbox::incoming::Incoming;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, blobs, row};

/// Checks, before anything is written, that [`store`] will find what it needs.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, message: &Incoming<'_>) -> Result<(), Stop> {
    let Some(body) = &message.new.body else { return Err(malformed("message.body: is missing")) };
    match row::get::<BodyHead>(turn.rows, Key::BodyHead(message.body_id))? {
        Some(head) if head.text_length != body.text_length => {
            Err(refuse(Refusal::Conflict, "message.body: another body has this id"))
        }
        Some(head) if head.blobs != message.blobs => {
            Err(refuse(Refusal::Conflict, "message.pieces: the body with this id has other blobs"))
        }
        // A transfer within a shard names the body alone.
        None if body.text.is_empty() && body.text_length > 0 => {
            Err(malformed("message.body: this shard has no such body, and the command brings no text"))
        }
        Some(_) => Ok(()),
        None => blobs::check(turn, &message.blobs),
    }
}

/// Adds `references` to a body, and stores it when it is new. The text is moved, not copied.
pub(crate) fn store(turn: &mut Turn<'_, impl Rows>, message: &Incoming<'_>, references: u64) -> Result<(), Broken> {
    let Some(body) = message.new.body.as_ref().filter(|_| references > 0) else { return Ok(()) };
    let key = Key::BodyHead(message.body_id);
    let head = match row::get::<BodyHead>(turn.rows, key)? {
        Some(head) => BodyHead { references: head.references + references, ..head },
        None => {
            turn.rows.put(Key::Body(message.body_id).bytes(), body.text.clone());
            turn.state.bytes += body.text.len() as u64;
            blobs::hold(turn, &message.blobs)?;
            BodyHead {
                compression: body.compression,
                text_length: body.text_length,
                stored_length: body.text.len() as u64,
                references,
                blobs: message.blobs.clone(),
            }
        }
    };
    row::put(turn.rows, key, &head);
    Ok(())
}

/// Adds one reference to a body that is here.
pub(crate) fn retain(turn: &mut Turn<'_, impl Rows>, body: BodyId) -> Result<(), Broken> {
    let key = Key::BodyHead(body);
    let mut head: BodyHead = row::need(turn.rows, key)?;
    head.references += 1;
    row::put(turn.rows, key, &head);
    Ok(())
}

/// Takes one reference away; the body goes with the last, and lets go of its blobs.
pub(crate) fn release(turn: &mut Turn<'_, impl Rows>, body: BodyId) -> Result<(), Broken> {
    let key = Key::BodyHead(body);
    let mut head: BodyHead = row::need(turn.rows, key)?;
    head.references =
        head.references.checked_sub(1).ok_or_else(|| Broken::corrupt(key, "references would fall below zero"))?;
    if head.references > 0 {
        row::put(turn.rows, key, &head);
        return Ok(());
    }
    turn.state.bytes = turn
        .state
        .bytes
        .checked_sub(head.stored_length)
        .ok_or_else(|| Broken::corrupt(Key::Shard, "bytes would fall below zero"))?;
    row::delete(turn.rows, key);
    row::delete(turn.rows, Key::Body(body));
    blobs::release(turn, &head.blobs)
}

/// The body as readers get it.
pub(crate) fn read(reader: &impl Reader, body: BodyId) -> Result<BodyRecord, Broken> {
    let head: BodyHead = row::need(reader, Key::BodyHead(body))?;
    let key = Key::Body(body);
    let text = reader.get(&key.bytes())?.ok_or_else(|| Broken::missing(key))?;
    if text.len() as u64 != head.stored_length {
        return Err(Broken::corrupt(key, format!("{} bytes, {} were stored", text.len(), head.stored_length)));
    }
    Ok(BodyRecord { compression: head.compression, text, text_length: head.text_length })
}
