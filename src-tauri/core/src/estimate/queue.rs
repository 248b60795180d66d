//! How a pull ends: the engine's queue, played forward. Layers are downloaded some at a time over
//! one line that they share, and extracted one at a time in the order of the image.

/// What is left to do of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LayerLeft {
    /// Bytes to download.
    pub download: f64,
    /// Seconds of extraction, once it is downloaded and has its turn.
    pub extraction: f64,
}

/// Returns the seconds until the last layer is on the engine. `slots` layers are downloaded at once
/// and share `rate` bytes per second evenly; a freed slot goes to the next layer in order.
pub(super) fn seconds_left(layers: &[LayerLeft], slots: usize, rate: f64) -> f64 {
    let arrivals = arrivals(layers, slots.max(1), rate.max(1.0));
    let mut end = 0.0_f64;
    for (layer, arrival) in layers.iter().zip(arrivals) {
        end = end.max(arrival) + layer.extraction;
    }
    end
}

/// Returns for each layer the seconds until all its bytes are there.
fn arrivals(layers: &[LayerLeft], slots: usize, rate: f64) -> Vec<f64> {
    let mut arrivals = vec![0.0; layers.len()];
    let mut waiting = layers
        .iter()
        .zip(&mut arrivals)
        .filter(|(layer, _)| layer.download > 0.0);
    let mut active: Vec<(f64, &mut f64)> = Vec::with_capacity(slots);
    let mut now = 0.0;
    loop {
        while active.len() < slots
            && let Some((layer, arrival)) = waiting.next()
        {
            active.push((layer.download, arrival));
        }
        let Some(least) = active.iter().map(|(left, _)| *left).reduce(f64::min) else {
            break;
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "an engine has a handful of slots"
        )]
        let share = active.len() as f64;
        now += least * share / rate;
        active.retain_mut(|(left, arrival)| {
            *left -= least;
            **arrival = now;
            // What is left of a byte is the arithmetic's, not the layer's.
            *left > 0.5
        });
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(layers: &[(f64, f64)], slots: usize, expected: f64) {
        let layers: Vec<_> = layers
            .iter()
            .map(|&(download, extraction)| LayerLeft {
                download,
                extraction,
            })
            .collect();
        let left = seconds_left(&layers, slots, 100.0);
        assert!((left - expected).abs() < 1e-6, "{left}, not {expected}");
    }

    #[test]
    fn a_line_is_shared_and_takes_its_time_whatever_the_slots() {
        for slots in 1..5 {
            check(&[(100.0, 0.0), (200.0, 0.0), (100.0, 0.0)], slots, 4.0);
        }
    }

    #[test]
    fn extraction_waits_for_its_layer_and_for_the_layer_before() {
        // The second is there first (after 2 s of sharing), and waits for the first (4 s, and 5 of extraction).
        check(&[(300.0, 5.0), (100.0, 1.0)], 2, 4.0 + 5.0 + 1.0);
        // One at a time: the first is extracted while the second arrives.
        check(&[(100.0, 1.0), (500.0, 2.0)], 1, 6.0 + 2.0);
    }

    #[test]
    fn what_is_downloaded_has_only_its_extraction_before_it() {
        check(&[(0.0, 1.5), (0.0, 2.0)], 3, 3.5);
        check(&[], 3, 0.0);
    }

    #[test]
    fn a_freed_slot_goes_to_the_next_layer() {
        // 50 and 150 share until the first is there (1 s); then 100 and 100 share (2 s).
        check(&[(50.0, 0.0), (150.0, 0.0), (100.0, 10.0)], 2, 3.0 + 10.0);
    }
}
