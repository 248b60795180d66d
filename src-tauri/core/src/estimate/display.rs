//! How the time left is shown: the one place with the rules. Figures come in as the evidence gives
//! them; what goes out ticks like a clock, says how sure it is, and says nothing rather than a guess.

use std::time::Duration;

use super::forecast::Forecast;
use super::rate::STALL;
use crate::progress::Eta;

/// Bounds that are closer than this, P90 over P10, make a point.
const POINT: f64 = 1.5;
/// Bounds that are closer than this make a range; wider ones say too little.
const RANGE: f64 = 6.0;
/// Silence of this length is shown as a stall: a beat before the third second, so that nothing that is
/// shown stands still for three.
const SHOWN_STALL: Duration = STALL.saturating_sub(Duration::from_millis(250));
/// What is shown stays of its kind until the bounds have moved this much further.
const STAY: f64 = 1.15;
/// A figure follows the evidence within this share of itself, when that falls.
const FALL: f64 = 0.03;
/// The same when it rises: good news may come quicker than bad.
const RISE: f64 = 0.08;
/// The least and the most time that following takes, in seconds.
const FOLLOW_S: (f64, f64) = (0.3, 5.0);

/// The figure that is shown, and how it came to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Display {
    shown: Option<Shown>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    at: Duration,
    /// Seconds left.
    left: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Nothing,
    Point,
    Range,
}

/// What is shown, and the bounds behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub eta: Eta,
    /// The point in milliseconds; `None` when nothing is shown.
    pub ms: Option<u64>,
    /// P10 and P90 in milliseconds, whenever there is a forecast.
    pub bounds_ms: Option<(u64, u64)>,
}

/// Something that should move and does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence<'a> {
    /// How long nothing has moved.
    pub idle: Duration,
    /// What is waited for.
    pub layer: Option<&'a str>,
}

impl Display {
    /// Returns what to show `at` this time of the run.
    pub(super) fn show(
        &mut self,
        at: Duration,
        forecast: Option<Forecast>,
        silence: Option<Silence<'_>>,
    ) -> Figure {
        if let Some(silence) = silence.filter(|silence| silence.idle >= SHOWN_STALL) {
            self.shown = None;
            return Figure {
                eta: Eta::Stalled {
                    idle_ms: milliseconds(silence.idle.as_secs_f64()),
                    layer: silence.layer.map(str::to_owned),
                },
                ms: None,
                bounds_ms: None,
            };
        }
        let Some(forecast) = forecast else {
            self.shown = None;
            self.kind = Kind::Nothing;
            return Figure {
                eta: Eta::Calculating,
                ms: None,
                bounds_ms: None,
            };
        };
        let left = self.follow(at, forecast.mid);
        // The bounds go with the figure that is shown.
        let moved = left - forecast.mid;
        let (low, high) = (
            (forecast.low + moved).max(0.0).min(left),
            (forecast.high + moved).max(left),
        );
        self.kind = self.kind_of(low, high);
        let (ms, low_ms, high_ms) = (milliseconds(left), milliseconds(low), milliseconds(high));
        let (eta, ms) = match self.kind {
            Kind::Nothing => (Eta::Calculating, None),
            Kind::Point => (Eta::Point { ms }, Some(ms)),
            Kind::Range => (Eta::Range { low_ms, high_ms }, Some(ms)),
        };
        Figure {
            eta,
            ms,
            bounds_ms: Some((low_ms, high_ms)),
        }
    }

    /// Lets the shown figure tick down with the clock, and follow what the evidence says.
    fn follow(&mut self, at: Duration, target: f64) -> f64 {
        let left = match self.shown {
            None => target,
            Some(shown) => {
                let passed = at.saturating_sub(shown.at).as_secs_f64();
                let ticked = (shown.left - passed).max(0.0);
                let share = if target < ticked { FALL } else { RISE };
                let pace = (share * ticked.max(target)).clamp(FOLLOW_S.0, FOLLOW_S.1);
                target + (ticked - target) * (-passed / pace).exp()
            }
        };
        self.shown = Some(Shown { at, left });
        left
    }

    /// Compares the bounds as they would be read: in whole seconds, rounded up.
    fn kind_of(&self, low: f64, high: f64) -> Kind {
        let ratio = high.ceil().max(1.0) / low.ceil().max(1.0);
        let stay = |kind| if self.kind == kind { STAY } else { 1.0 };
        if ratio < POINT * stay(Kind::Point) {
            Kind::Point
        } else if ratio < RANGE * stay(Kind::Range) {
            Kind::Range
        } else {
            Kind::Nothing
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time that is not negative, and the cast saturates"
)]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(low: f64, mid: f64, high: f64) -> Forecast {
        Forecast { low, mid, high }
    }

    fn first(low: f64, mid: f64, high: f64) -> Eta {
        Display::default()
            .show(Duration::ZERO, Some(forecast(low, mid, high)), None)
            .eta
    }

    #[test]
    fn nothing_is_shown_before_there_is_evidence() {
        let figure = Display::default().show(Duration::ZERO, None, None);
        assert_eq!((figure.eta, figure.ms), (Eta::Calculating, None));
    }

    #[test]
    fn close_bounds_make_a_point_wider_ones_a_range_and_the_widest_nothing() {
        assert_eq!(first(10.0, 12.0, 14.0), Eta::Point { ms: 12_000 });
        assert_eq!(
            first(10.0, 15.0, 25.0),
            Eta::Range {
                low_ms: 10_000,
                high_ms: 25_000
            }
        );
        assert_eq!(first(10.0, 20.0, 65.0), Eta::Calculating);
    }

    #[test]
    fn below_a_second_bounds_do_not_matter() {
        assert_eq!(first(0.1, 0.3, 0.9), Eta::Point { ms: 300 });
    }

    #[test]
    fn the_figure_ticks_with_the_clock() {
        let mut display = Display::default();
        for second in 0_u32..5 {
            let left = 20.0 - f64::from(second);
            let at = Duration::from_secs(second.into());
            let figure = display.show(at, Some(forecast(left * 0.9, left, left * 1.1)), None);
            assert_eq!(figure.ms, Some(20_000 - 1_000 * u64::from(second)));
        }
    }

    #[test]
    fn a_jump_of_the_evidence_is_followed_in_steps() {
        let mut display = Display::default();
        let mut at = Duration::ZERO;
        let mut last = display
            .show(at, Some(forecast(9.0, 10.0, 11.0)), None)
            .ms
            .unwrap();
        for _ in 0..40 {
            at += Duration::from_millis(250);
            let left = 30.0 - at.as_secs_f64();
            let told = Some(forecast(left * 0.9, left, left * 1.1));
            let now = display.show(at, told, None).ms.unwrap();
            assert!(now <= last * 6 / 5, "{last} to {now}");
            last = now;
        }
        assert!((18_000..=20_000).contains(&last), "{last}");
    }

    #[test]
    fn good_news_is_followed_sooner_than_bad_news() {
        let after = |target: f64| {
            let mut display = Display::default();
            display.show(Duration::ZERO, Some(forecast(19.0, 20.0, 21.0)), None);
            let figure = display.show(
                Duration::from_millis(500),
                Some(forecast(target * 0.9, target, target * 1.1)),
                None,
            );
            let shown = Duration::from_millis(figure.ms.unwrap()).as_secs_f64();
            (shown - 19.5).abs() / (target - 19.5).abs()
        };
        assert!(after(14.5) > after(24.5));
    }

    #[test]
    fn silence_is_called_a_stall_and_names_what_is_waited_for() {
        let mut display = Display::default();
        let silence = |seconds| Silence {
            idle: Duration::from_secs(seconds),
            layer: Some("3f2a"),
        };
        let mut show = |seconds| {
            display.show(
                Duration::ZERO,
                Some(forecast(9.0, 10.0, 11.0)),
                Some(silence(seconds)),
            )
        };
        assert_eq!(show(2).eta, Eta::Point { ms: 10_000 });
        let stalled = show(12);
        assert_eq!(
            stalled.eta,
            Eta::Stalled {
                idle_ms: 12_000,
                layer: Some("3f2a".to_owned())
            }
        );
        assert_eq!(stalled.ms, None);
    }
}
