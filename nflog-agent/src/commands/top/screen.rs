//! The live view's loop, and the terminal, which is put back however the loop ends: by a key, a signal, an error or a panic.

use std::io;
use std::time::Instant;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event;

use super::browser::Browser;
use super::messages::Messages;
use super::tally::By;
use super::view::{self, Surroundings};
use super::{POLL, Top, keys};

/// Shows until a key, a signal, or the end of the agent.
pub(super) fn run(top: &Top) -> io::Result<()> {
    let _held = Held::new(&top.messages);
    // Also sets a panic hook that puts the terminal back.
    let shown = ratatui::try_init().and_then(|mut terminal| interact(top, &mut terminal));
    let restored = ratatui::try_restore();
    shown.and(restored)
}

/// Messages wait until the terminal is free.
struct Held<'a>(&'a Messages);

impl<'a> Held<'a> {
    fn new(messages: &'a Messages) -> Self {
        messages.hold();
        Self(messages)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn interact(top: &Top, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut browser = Browser::new(top.view.view.unwrap_or(By::Prefix));
    let mut last = Instant::now();
    let mut message = None;
    let mut changed = true;
    while !top.is_over() {
        if changed {
            let around = Surroundings {
                reading: &top.reading,
                message: message.as_deref(),
                colour: top.colour,
            };
            terminal.draw(|frame| view::draw(frame, &browser, &around))?;
        }
        changed = false;
        let wait = (last + top.view.interval).saturating_duration_since(Instant::now());
        if event::poll(wait.min(POLL))? {
            changed = true;
            let wish = keys::wish(&event::read()?, browser.is_editing());
            if wish.is_some_and(|wish| !browser.obey(wish)) {
                return Ok(());
            }
        }
        let now = Instant::now();
        if now >= last + top.view.interval {
            top.advance(browser.model_mut(), now - last);
            last = now;
            changed = true;
        }
        let said = top.messages.last();
        changed |= said != message;
        message = said;
    }
    Ok(())
}
