//! What the person at the terminal has chosen to see. Knows no terminal: [`Wish`]es come in, rows go out.

use super::model::{Model, Row, Sort};
use super::tally::By;

/// Longest filter.
const LONGEST_FILTER: usize = 64;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Show(By),
    NextView,
    PreviousView,
    NextSort,
    Pause,
    Up(usize),
    Down(usize),
    Top,
    Bottom,
    /// Begin to write a filter.
    Filter,
    Write(char),
    Erase,
    /// The filter is written.
    Accept,
    /// Without filter.
    Clear,
}

/// The choices, and the model that they are applied to.
#[derive(Debug, Default)]
pub(super) struct Browser {
    model: Model,
    /// What is shown while the model goes on.
    frozen: Option<Box<Model>>,
    view: View,
    sort: Sort,
    filter: String,
    editing: bool,
    offset: usize,
}

#[derive(Clone, Copy, Debug)]
struct View(By);

impl Default for View {
    fn default() -> Self {
        Self(By::Prefix)
    }
}

impl Browser {
    pub(super) fn new(view: By) -> Self {
        Self {
            view: View(view),
            ..Self::default()
        }
    }

    /// The model, to let it go on; also while what is shown is paused.
    pub(super) const fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The model that is shown.
    pub(super) fn shown(&self) -> &Model {
        self.frozen.as_deref().unwrap_or(&self.model)
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.shown().rows(self.view.0, self.sort, &self.filter)
    }

    pub(super) const fn view(&self) -> By {
        self.view.0
    }

    pub(super) const fn sort(&self) -> Sort {
        self.sort
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) const fn is_editing(&self) -> bool {
        self.editing
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// The first row to show of `rows`, if `room` fit.
    pub(super) fn first(&self, rows: usize, room: usize) -> usize {
        self.offset.min(rows.saturating_sub(room))
    }

    /// Does what is asked for. Returns whether to go on.
    pub(super) fn obey(&mut self, wish: Wish) -> bool {
        match wish {
            Wish::Quit => return false,
            Wish::Show(view) => self.show(view),
            Wish::NextView => self.turn(1),
            Wish::PreviousView => self.turn(By::ALL.len() - 1),
            Wish::NextSort => {
                self.sort = self.sort.next();
                self.offset = 0;
            }
            Wish::Pause => {
                self.frozen = match self.frozen {
                    Some(_) => None,
                    None => Some(Box::new(self.model.clone())),
                };
            }
            Wish::Up(rows) => self.offset = self.offset.min(self.last()).saturating_sub(rows),
            Wish::Down(rows) => self.offset = (self.offset + rows).min(self.last()),
            Wish::Top => self.offset = 0,
            Wish::Bottom => self.offset = self.last(),
            Wish::Filter => {
                self.editing = true;
                self.filter.clear();
            }
            Wish::Write(character) => {
                if self.filter.chars().count() < LONGEST_FILTER {
                    self.filter.push(character);
                }
                self.offset = 0;
            }
            Wish::Erase => {
                self.filter.pop();
            }
            Wish::Accept => self.editing = false,
            Wish::Clear => {
                self.editing = false;
                self.filter.clear();
            }
        }
        true
    }

    fn show(&mut self, view: By) {
        self.view = View(view);
        self.offset = 0;
    }

    fn turn(&mut self, by: usize) {
        self.show(By::ALL[(self.view.0 as usize + by) % By::ALL.len()]);
    }

    fn last(&self) -> usize {
        // Above the losses there is the account, and a title.
        let above = match self.view.0 {
            By::Loss => self.shown().account().len() + 2,
            _ => 0,
        };
        (self.rows().len() + above).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::top::tally::{Counts, Tally};

    fn advance(browser: &mut Browser, names: &[&str]) {
        let mut tally = Tally::default();
        for name in names {
            let one = Counts { packets: 1, bytes: 1 };
            tally.all.add(one);
            tally.tables[By::Prefix as usize].add(name, one);
        }
        browser.model_mut().advance(tally, Duration::from_secs(1), None);
    }

    #[test]
    fn what_is_paused_stays_while_the_model_goes_on() {
        let mut browser = Browser::new(By::Prefix);
        advance(&mut browser, &["a"]);
        assert!(browser.obey(Wish::Pause));
        advance(&mut browser, &["b"]);
        assert_eq!((browser.is_paused(), browser.rows().len()), (true, 1));
        browser.obey(Wish::Pause);
        assert_eq!((browser.is_paused(), browser.rows().len()), (false, 2));
    }

    #[test]
    fn views_go_round() {
        let mut browser = Browser::new(By::Prefix);
        browser.obey(Wish::PreviousView);
        assert_eq!(browser.view(), By::Loss);
        browser.obey(Wish::NextView);
        assert_eq!(browser.view(), By::Prefix);
        browser.obey(Wish::Show(By::Owner));
        assert_eq!(browser.view(), By::Owner);
        assert!(!browser.obey(Wish::Quit));
    }

    #[test]
    fn a_filter_is_written_and_cleared() {
        let mut browser = Browser::new(By::Prefix);
        advance(&mut browser, &["web", "dns"]);
        for wish in [Wish::Filter, Wish::Write('d'), Wish::Write('x'), Wish::Erase] {
            browser.obey(wish);
        }
        assert!(browser.is_editing());
        browser.obey(Wish::Accept);
        assert_eq!((browser.is_editing(), browser.rows().len()), (false, 1));
        browser.obey(Wish::Clear);
        assert_eq!(browser.rows().len(), 2);
    }

    #[test]
    fn scrolling_ends_at_the_last_row() {
        let mut browser = Browser::new(By::Prefix);
        advance(&mut browser, &["a", "b", "c"]);
        browser.obey(Wish::Down(10));
        assert_eq!(browser.first(3, 2), 1);
        browser.obey(Wish::Up(1));
        browser.obey(Wish::Up(1));
        assert_eq!(browser.first(3, 2), 0);
    }
}
