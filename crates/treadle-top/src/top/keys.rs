//! Where the user looks, and what a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use treadle_core::live::asking::Found;

use super::model::{Model, Watched};

/// How the workers of a pool are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By their numbers.
    Number,
    /// The one whose task has run longest first.
    Time,
    /// The one that used most CPU first.
    Load,
    /// The one that finished most first.
    Tasks,
}

impl Sort {
    /// In the footer.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::Number => "number",
            Sort::Time => "time",
            Sort::Load => "CPU",
            Sort::Tasks => "tasks",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Number => Sort::Time,
            Sort::Time => Sort::Load,
            Sort::Load => Sort::Tasks,
            Sort::Tasks => Sort::Number,
        }
    }
}

/// A row of the list: a pool, or a program without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) program: Found,
    pub(crate) pool: Option<u64>,
}

/// The rows of the list.
pub(crate) fn places(model: &Model) -> Vec<Place> {
    model.programs.iter().flat_map(places_of).collect()
}

fn places_of(watched: &Watched) -> Vec<Place> {
    let place = |pool: Option<u64>| Place {
        program: watched.found.clone(),
        pool,
    };
    let pools: Vec<Place> = watched
        .last()
        .filter(|_| !watched.has_ended())
        .map(|look| {
            look.program
                .pools
                .iter()
                .map(|pool| place(Some(pool.number)))
                .collect()
        })
        .unwrap_or_default();
    if pools.is_empty() {
        vec![place(None)]
    } else {
        pools
    }
}

/// What lies over the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Overlay {
    Help,
    Stacks {
        title: String,
        /// `None` while they are being asked for.
        text: Option<String>,
        scroll: usize,
    },
}

/// What a key asks of the rest of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    /// To end with this exit code.
    End(i32),
    /// The stacks of a pool of a program.
    Stacks(Place),
}

/// Where the user looks.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) place: Option<Place>,
    pub(crate) sort: Sort,
    pub(crate) paused: bool,
    pub(crate) overlay: Option<Overlay>,
    /// The first worker that is shown.
    pub(crate) scroll: usize,
    pub(crate) interval_s: f64,
    /// Rows that a page has.
    pub(crate) page: usize,
}

impl Face {
    pub(crate) fn new(interval_s: f64) -> Face {
        Face {
            place: None,
            sort: Sort::Number,
            paused: false,
            overlay: None,
            scroll: 0,
            interval_s,
            page: 10,
        }
    }

    /// The row that is selected: the first, when the one that was is gone.
    pub(crate) fn index(&self, places: &[Place]) -> usize {
        let same = |place: &Place| self.place.as_ref() == Some(place);
        let program = |place: &Place| {
            self.place
                .as_ref()
                .is_some_and(|own| own.program == place.program)
        };
        places
            .iter()
            .position(same)
            .or_else(|| places.iter().position(program))
            .unwrap_or(0)
    }

    /// The selected row.
    pub(crate) fn selected<'a>(&self, places: &'a [Place]) -> Option<&'a Place> {
        places.get(self.index(places))
    }

    /// Does what a key asks.
    pub(crate) fn press(&mut self, key: KeyEvent, model: &Model) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return Wish::End(130);
        }
        if let Some(overlay) = &mut self.overlay {
            if !scrolled(overlay, key.code, self.page) {
                self.overlay = None;
            }
            return Wish::Nothing;
        }
        let places = places(model);
        match key.code {
            KeyCode::Char('q' | 'Q') => return Wish::End(0),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Some(Overlay::Help),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Up | KeyCode::Char('k') => {
                self.select(&places, self.index(&places).saturating_sub(1))
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(&places, self.index(&places) + 1),
            KeyCode::Home => self.select(&places, 0),
            KeyCode::End => self.select(&places, places.len()),
            KeyCode::Tab => self.select_program(&places),
            KeyCode::PageDown => self.scroll += self.page,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(self.page),
            KeyCode::Char('d') | KeyCode::Enter => {
                if let Some(place) = self.selected(&places) {
                    self.overlay = Some(Overlay::Stacks {
                        title: format!("stacks of {}", place.program.pid),
                        text: None,
                        scroll: 0,
                    });
                    return Wish::Stacks(place.clone());
                }
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn select(&mut self, places: &[Place], index: usize) {
        let index = index.min(places.len().saturating_sub(1));
        if self.index(places) != index {
            self.scroll = 0;
        }
        self.place = places.get(index).cloned();
    }

    fn select_program(&mut self, places: &[Place]) {
        let Some(own) = self.selected(places).cloned() else {
            return;
        };
        let here = self.index(places);
        let after = (here..places.len()).chain(0..here);
        if let Some(next) = after
            .into_iter()
            .find(|index| places[*index].program != own.program)
        {
            self.select(places, next);
        }
    }
}

/// Scrolls what lies over the picture; false for a key that closes it.
fn scrolled(overlay: &mut Overlay, key: KeyCode, page: usize) -> bool {
    let Overlay::Stacks { scroll, text, .. } = overlay else {
        return false;
    };
    let last = text
        .as_ref()
        .map_or(0, |text| text.lines().count())
        .saturating_sub(1);
    *scroll = match key {
        KeyCode::Up | KeyCode::Char('k') => scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => *scroll + 1,
        KeyCode::PageUp => scroll.saturating_sub(page),
        KeyCode::PageDown | KeyCode::Char(' ') => *scroll + page,
        KeyCode::Home => 0,
        KeyCode::End => last,
        _ => return false,
    }
    .min(last);
    true
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{found, pool, program};
    use super::*;
    use treadle_core::live::asking::{Answer, Trouble};
    use treadle_core::live::picture::Pool;

    fn two_programs() -> Model {
        let mut model = Model::default();
        model.discovered(&[found(1), found(2)]);
        for pid in [1, 2] {
            let second = Pool {
                number: 2,
                ..pool(1, 0, 0)
            };
            let program = program(vec![pool(4, 8, 0), second]);
            model.heard(
                &found(pid),
                1.0,
                Ok(Answer {
                    pid,
                    program,
                    stacks: Vec::new(),
                }),
            );
        }
        model
    }

    fn press(face: &mut Face, model: &Model, code: KeyCode) -> Wish {
        face.press(KeyEvent::new(code, KeyModifiers::NONE), model)
    }

    fn selected(face: &Face, model: &Model) -> (u32, Option<u64>) {
        let places = places(model);
        let place = face.selected(&places).unwrap();
        (place.program.pid, place.pool)
    }

    #[test]
    fn keys_move_the_selection_and_stop_at_its_ends() {
        let (model, mut face) = (two_programs(), Face::new(1.0));
        let mut walk = Vec::new();
        for code in [
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Tab,
            KeyCode::End,
            KeyCode::Char('j'),
            KeyCode::Tab,
            KeyCode::Home,
        ] {
            assert_eq!(press(&mut face, &model, code), Wish::Nothing);
            walk.push(selected(&face, &model));
        }
        let (one, two) = (Some(1), Some(2));
        assert_eq!(
            walk,
            [
                (1, one),
                (1, two),
                (2, one),
                (2, two),
                (2, two),
                (1, one),
                (1, one)
            ]
        );
    }

    #[test]
    fn the_selection_stays_with_its_pool_and_then_its_program() {
        let (mut model, mut face) = (two_programs(), Face::new(1.0));
        press(&mut face, &model, KeyCode::End);
        assert_eq!(selected(&face, &model), (2, Some(2)));
        model.programs.remove(0);
        assert_eq!(selected(&face, &model), (2, Some(2)));
        model.heard(&found(2), 2.0, Err(Trouble::Ended));
        assert_eq!(selected(&face, &model), (2, None));
    }

    #[test]
    fn quitting_sorting_pausing() {
        let (model, mut face) = (two_programs(), Face::new(1.0));
        press(&mut face, &model, KeyCode::Char('s'));
        press(&mut face, &model, KeyCode::Char(' '));
        assert!(face.sort == Sort::Time && face.paused);
        assert_eq!(press(&mut face, &model, KeyCode::Char('q')), Wish::End(0));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(face.press(interrupt, &model), Wish::End(130));
    }

    #[test]
    fn stacks_are_asked_for_scrolled_and_closed() {
        let (model, mut face) = (two_programs(), Face::new(1.0));
        press(&mut face, &model, KeyCode::Down);
        let wish = press(&mut face, &model, KeyCode::Char('d'));
        assert!(matches!(wish, Wish::Stacks(place) if place.pool == Some(2)));
        face.overlay = Some(Overlay::Stacks {
            title: "t".to_owned(),
            text: Some("line\n".repeat(30)),
            scroll: 0,
        });
        let at = |face: &Face| match &face.overlay {
            Some(Overlay::Stacks { scroll, .. }) => Some(*scroll),
            _ => None,
        };
        press(&mut face, &model, KeyCode::PageDown);
        assert_eq!(at(&face), Some(10));
        press(&mut face, &model, KeyCode::End);
        press(&mut face, &model, KeyCode::Down);
        assert_eq!(at(&face), Some(29));
        assert_eq!(
            press(&mut face, &model, KeyCode::Char('q')),
            Wish::Nothing,
            "closes the overlay, not the program"
        );
        assert_eq!(at(&face), None);
    }
}
