//! The terminal: taken over, drawn on, read from, and given back as it was.
//!
//! *Guarantees*: however this ends - a key, a signal, an error, a panic - the terminal is as it was before. Only SIGKILL, which nothing can
//! catch, leaves it taken; `reset` helps then.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::widgets::Paragraph;
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGHUP, SIGTERM};
use treadle_core::live::asking;
use treadle_core::live::protocol::Ask;
use treadle_probe::clock::monotonic;

use super::dump;
use super::keys::{Face, Overlay, Place, Wish};
use super::model::Model;
use super::sampling::{Sampler, choose};
use super::view::{self, Paint};

/// How long a key may wait until it is seen at the latest, while nothing else happens: a blink of an eye.
const TURN: Duration = Duration::from_millis(50);
/// How often the ages on the screen are renewed.
const RENEW_S: f64 = 0.5;
/// How often new programs are looked for.
const DISCOVER_S: f64 = 1.0;

/// The exit code of a program that a signal ended, as a shell tells it.
fn code_of(signal: i32) -> i32 {
    128 + signal
}

/// While it lives the terminal is ours.
struct Taken;

impl Taken {
    fn take() -> io::Result<Taken> {
        enable_raw_mode()?;
        // From here on a failure gives back what was taken.
        let taken = Taken;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Where keys come from, as the library reads them: standard input, or the terminal itself where that is something else.
struct Keys(Option<File>);

impl Keys {
    fn open() -> io::Result<Keys> {
        if rustix::termios::isatty(rustix::stdio::stdin()) {
            return Ok(Keys(None));
        }
        File::open("/dev/tty").map(|file| Keys(Some(file)))
    }

    /// Waits for a key or a signal, a turn at most; false when the terminal is gone.
    ///
    /// The library must not wait: it would read the end of a terminal that went away over and over.
    fn wait(&self) -> io::Result<bool> {
        let terminal: BorrowedFd<'_> = match &self.0 {
            Some(file) => file.as_fd(),
            None => rustix::stdio::stdin(),
        };
        let turn = Timespec::try_from(TURN).map_err(io::Error::other)?;
        let mut waited = [PollFd::from_borrowed_fd(terminal, PollFlags::IN)];
        match rustix::event::poll(&mut waited, Some(&turn)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(!waited[0].revents().intersects(gone))
    }
}

/// What the loop needs to know.
pub(crate) struct Sight<'a> {
    pub(crate) pid: Option<u32>,
    pub(crate) interval_s: f64,
    pub(crate) colour: bool,
    pub(crate) interrupted: &'a dyn Fn() -> bool,
}

/// Shows the view until the user or a signal ends it; returns the exit code.
///
/// # Errors
/// When there is no terminal, or it goes away.
pub(crate) fn show(sight: &Sight<'_>, stdout: &mut dyn Write) -> io::Result<i32> {
    let signals = [SIGTERM, SIGHUP].map(|signal| (signal, Arc::new(AtomicBool::new(false))));
    for (signal, flag) in &signals {
        signal_hook::flag::register(*signal, flag.clone())?;
    }
    let keys = Keys::open()?;
    let taken = Taken::take()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout))?;
    let mut view = View::new(sight);
    let code = loop {
        if let Some((signal, _)) = signals.iter().find(|(_, flag)| flag.load(Ordering::SeqCst)) {
            break code_of(*signal);
        }
        if (sight.interrupted)() {
            break 130;
        }
        view.listen();
        if view.is_due() {
            terminal.draw(|frame| {
                let area = frame.area();
                let lines = view.picture((area.width, area.height));
                frame.render_widget(Paragraph::new(lines), area);
            })?;
        }
        if !keys.wait()? {
            break code_of(SIGHUP);
        }
        if let Some(code) = view.obey()? {
            break code;
        }
    };
    drop(terminal);
    drop(taken);
    Ok(code)
}

/// The state of the loop.
struct View<'a> {
    sight: &'a Sight<'a>,
    sampler: Sampler,
    model: Model,
    face: Face,
    /// What is shown while the picture stands still, and since when.
    frozen: Option<(Model, f64)>,
    stacks: Option<Receiver<String>>,
    discovered_s: f64,
    drawn_s: f64,
    changed: bool,
}

impl<'a> View<'a> {
    fn new(sight: &'a Sight<'a>) -> View<'a> {
        View {
            sight,
            sampler: Sampler::new(Duration::from_secs_f64(sight.interval_s)),
            model: Model::default(),
            face: Face::new(sight.interval_s),
            frozen: None,
            stacks: None,
            discovered_s: f64::NEG_INFINITY,
            drawn_s: f64::NEG_INFINITY,
            changed: true,
        }
    }

    /// Takes in what is new.
    fn listen(&mut self) {
        let now_s = monotonic();
        if now_s - self.discovered_s >= DISCOVER_S {
            self.discovered_s = now_s;
            // A program that was asked for by number and has ended is in the model already.
            let found = choose(self.sight.pid).unwrap_or_default();
            self.model.discovered(&found);
            for one in &found {
                // Without room for a thread there may be some at the next discovery.
                let _ = self.sampler.watch(one);
            }
        }
        for heard in self.sampler.heard(Duration::ZERO) {
            self.model.heard(&heard.found, heard.at_s, heard.answer);
            self.changed = true;
        }
        self.model.forget(now_s, self.sight.pid);
        let arrived = self
            .stacks
            .as_ref()
            .and_then(|stacks| stacks.try_recv().ok());
        if let Some(arrived) = arrived {
            self.stacks = None;
            if let Some(Overlay::Stacks { text, .. }) = &mut self.face.overlay {
                *text = Some(arrived);
            }
            self.changed = true;
        }
    }

    fn is_due(&self) -> bool {
        self.changed || monotonic() - self.drawn_s >= RENEW_S
    }

    fn picture(&mut self, size: (u16, u16)) -> Vec<ratatui::text::Line<'static>> {
        self.changed = false;
        self.drawn_s = monotonic();
        self.face.page = usize::from(size.1 / 2).max(1);
        let paint = Paint {
            colour: self.sight.colour,
        };
        match &self.frozen {
            Some((model, at_s)) => view::screen(model, &self.face, paint, size, *at_s),
            None => view::screen(&self.model, &self.face, paint, size, self.drawn_s),
        }
    }

    /// Does what the user asks; the exit code when that is to end.
    fn obey(&mut self) -> io::Result<Option<i32>> {
        while event::poll(Duration::ZERO)? {
            self.changed = true;
            let Event::Key(key) = event::read()? else {
                continue;
            };
            let shown = self.frozen.as_ref().map_or(&self.model, |(model, _)| model);
            match self.face.press(key, shown) {
                Wish::Nothing => {}
                Wish::End(code) => return Ok(Some(code)),
                Wish::Stacks(place) => self.ask_stacks(place),
            }
            if self.face.paused != self.frozen.is_some() {
                self.frozen = self.face.paused.then(|| (self.model.clone(), monotonic()));
            }
        }
        Ok(None)
    }

    fn ask_stacks(&mut self, place: Place) {
        let (sender, receiver) = channel();
        self.stacks = Some(receiver);
        let body = move || {
            let text = match asking::ask(&place.program, Ask::Stacks) {
                Ok(answer) => dump::text(&answer, place.pool),
                Err(trouble) => format!("{}: {trouble}\n", place.program.pid),
            };
            // Nobody looks any more when the user has gone on.
            let _ = sender.send(text);
        };
        let started = std::thread::Builder::new()
            .name("ask-stacks".to_owned())
            .spawn(body);
        if let (Err(error), Some(Overlay::Stacks { text, .. })) = (started, &mut self.face.overlay)
        {
            *text = Some(format!("no thread can be had: {error}\n"));
        }
    }
}
