//! What keys mean.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::browser::Wish;
use super::tally::By;

/// Rows of a page.
const PAGE: usize = 15;

/// What an event of the terminal asks for; `editing`: a filter is being written.
pub(super) fn wish(event: &Event, editing: bool) -> Option<Wish> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        // The terminal is raw: Ctrl-C is a key like others.
        return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Wish::Quit);
    }
    if editing { written(key) } else { chosen(key) }
}

const fn written(key: &KeyEvent) -> Option<Wish> {
    Some(match key.code {
        KeyCode::Char(character) => Wish::Write(character),
        KeyCode::Backspace => Wish::Erase,
        KeyCode::Enter => Wish::Accept,
        KeyCode::Esc => Wish::Clear,
        _ => return None,
    })
}

fn chosen(key: &KeyEvent) -> Option<Wish> {
    Some(match key.code {
        KeyCode::Char('q') => Wish::Quit,
        KeyCode::Char('s') => Wish::NextSort,
        KeyCode::Char('/') => Wish::Filter,
        KeyCode::Char('p' | ' ') => Wish::Pause,
        KeyCode::Char('j') | KeyCode::Down => Wish::Down(1),
        KeyCode::Char('k') | KeyCode::Up => Wish::Up(1),
        KeyCode::PageDown => Wish::Down(PAGE),
        KeyCode::PageUp => Wish::Up(PAGE),
        KeyCode::Home => Wish::Top,
        KeyCode::End => Wish::Bottom,
        KeyCode::Tab | KeyCode::Right => Wish::NextView,
        KeyCode::BackTab | KeyCode::Left => Wish::PreviousView,
        KeyCode::Esc => Wish::Clear,
        KeyCode::Char(digit) => {
            let number = usize::try_from(digit.to_digit(10)?).ok()?;
            Wish::Show(*By::ALL.get(number.checked_sub(1)?)?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, editing: bool) -> Option<Wish> {
        wish(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)), editing)
    }

    #[test]
    fn digits_choose_a_view_and_others_do_nothing() {
        assert_eq!(press(KeyCode::Char('1'), false), Some(Wish::Show(By::Prefix)));
        assert_eq!(press(KeyCode::Char('6'), false), Some(Wish::Show(By::Loss)));
        assert_eq!(press(KeyCode::Char('0'), false), None);
        assert_eq!(press(KeyCode::Char('7'), false), None);
        assert_eq!(press(KeyCode::Char('x'), false), None);
    }

    #[test]
    fn while_a_filter_is_written_keys_are_its_letters() {
        assert_eq!(press(KeyCode::Char('q'), true), Some(Wish::Write('q')));
        assert_eq!(press(KeyCode::Char('q'), false), Some(Wish::Quit));
        assert_eq!(press(KeyCode::Enter, true), Some(Wish::Accept));
    }

    #[test]
    fn control_c_ends_it_whatever_is_being_written() {
        for editing in [false, true] {
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(wish(&Event::Key(key), editing), Some(Wish::Quit));
        }
    }
}
