use proptest::prelude::*;

use super::*;

/// One direction of a pipe: bytes on the way.
#[derive(Default)]
struct Pipe(VecDeque<u8>);

/// Brings everything that both sides have to say to the other, and returns what each heard.
fn settle(app: &mut Streams, agent: &mut Streams) -> (Vec<Event>, Vec<Event>) {
    let (mut at_app, mut at_agent) = (Vec::new(), Vec::new());
    while app.has_something_to_send() || agent.has_something_to_send() {
        let mut bytes = Vec::new();
        app.fetch(&mut bytes, usize::MAX);
        at_agent.extend(agent.receive(&bytes).unwrap());
        bytes.clear();
        agent.fetch(&mut bytes, usize::MAX);
        at_app.extend(app.receive(&bytes).unwrap());
    }
    (at_app, at_agent)
}

#[test]
fn what_is_written_arrives_in_both_directions_and_ends() {
    let (mut app, mut agent) = (Streams::app(), Streams::agent());
    let id = app.open().unwrap();
    assert_eq!(app.send(id, b"hello"), 5);
    app.finish(id);
    let (_, heard) = settle(&mut app, &mut agent);
    assert_eq!(
        heard,
        [
            Event::Opened(id),
            Event::Arrived(id, b"hello".to_vec()),
            Event::Finished(id)
        ]
    );
    assert_eq!(app.send(id, b"more"), 0, "it is finished");
    assert_eq!(agent.send(id, b"answer"), 6);
    agent.finish(id);
    let (heard, _) = settle(&mut app, &mut agent);
    assert_eq!(
        heard,
        [Event::Arrived(id, b"answer".to_vec()), Event::Finished(id)]
    );
    assert!(!app.is_open(id) && !agent.is_open(id));
}

#[test]
fn a_stream_that_nobody_reads_holds_up_itself_and_no_other() {
    let (mut app, mut agent) = (Streams::app(), Streams::agent());
    let (flood, keys) = (app.open().unwrap(), app.open().unwrap());
    settle(&mut app, &mut agent);
    let flood_size = usize::try_from(WINDOW).unwrap() + QUEUE;
    let mut sent = 0;
    loop {
        let now = agent.send(flood, &vec![b'y'; 100_000]);
        settle(&mut app, &mut agent);
        sent += now;
        if now == 0 {
            break;
        }
    }
    assert_eq!(sent, flood_size);
    assert_eq!(agent.send(keys, b"k"), 1);
    let (heard, _) = settle(&mut app, &mut agent);
    assert_eq!(heard, [Event::Arrived(keys, b"k".to_vec())]);
    // A small use is not worth a word, a larger one is.
    app.consume(flood, 1_000);
    assert_eq!(settle(&mut app, &mut agent).0, []);
    app.consume(flood, 99_000);
    let (heard, _) = settle(&mut app, &mut agent);
    let arrived: usize = heard
        .iter()
        .map(|event| match event {
            Event::Arrived(id, bytes) if *id == flood => bytes.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(arrived, 100_000);
}

#[test]
fn streams_take_turns() {
    let (mut app, mut agent) = (Streams::app(), Streams::agent());
    let ids: Vec<_> = (0..3).map(|_| app.open().unwrap()).collect();
    settle(&mut app, &mut agent);
    for id in &ids {
        agent.send(*id, &vec![0; 200_000]);
    }
    let mut bytes = Vec::new();
    let mut order = Vec::new();
    while agent.has_something_to_send() {
        bytes.clear();
        agent.fetch(&mut bytes, 1);
        for event in app.receive(&bytes).unwrap() {
            if let Event::Arrived(id, _) = event {
                order.push(id);
            }
        }
    }
    assert_eq!(order[..6], [&ids[..], &ids[..]].concat());
}

#[test]
fn a_reset_ends_a_stream_for_both_and_what_was_on_the_way_is_dropped() {
    let (mut app, mut agent) = (Streams::app(), Streams::agent());
    let id = app.open().unwrap();
    settle(&mut app, &mut agent);
    agent.send(id, b"on the way");
    app.reset(id);
    let (at_app, at_agent) = settle(&mut app, &mut agent);
    assert_eq!((at_app, at_agent), (vec![], vec![Event::Reset(id)]));
    let never_told = app.open().unwrap();
    app.reset(never_told);
    assert_eq!(settle(&mut app, &mut agent), (vec![], vec![]));
    assert!(!agent.is_open(id) && !app.is_open(never_told));
}

#[test]
fn a_ping_is_answered() {
    let (mut app, mut agent) = (Streams::app(), Streams::agent());
    settle(&mut app, &mut agent);
    app.ping();
    let mut bytes = Vec::new();
    app.fetch(&mut bytes, 1);
    agent.receive(&bytes).unwrap();
    bytes.clear();
    agent.fetch(&mut bytes, 1);
    assert_eq!(bytes, [7, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(app.receive(&bytes), Ok(vec![]));
}

/// Returns what an app that has opened one stream says to this.
fn check(bytes: &[u8]) -> Result<Vec<Event>, StreamError> {
    let mut app = Streams::app();
    app.open().unwrap();
    app.fetch(&mut Vec::new(), usize::MAX);
    app.receive(bytes)
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let frame = |kind: u8, stream: u32, length: u32, content: &[u8]| {
        [
            &PREFACE[..],
            &[kind],
            &stream.to_be_bytes(),
            &length.to_be_bytes(),
            content,
        ]
        .concat()
    };
    assert_eq!(check(b"usage: agent"), Err(StreamError::Preface));
    assert_eq!(check(b"cove\0\0\0\x01"), Err(StreamError::Preface));
    assert_eq!(check(&frame(9, 1, 0, b"")), Err(StreamError::Kind(9)));
    assert_eq!(check(&frame(0, 1, 0, b"")), Err(StreamError::Kind(0)));
    assert_eq!(check(&frame(1, 2, 0, b"")), Err(StreamError::Stream(2)));
    assert_eq!(check(&frame(2, 0, 1, b"x")), Err(StreamError::Stream(0)));
    assert_eq!(check(&frame(2, 2, 1, b"x")), Err(StreamError::Stream(2)));
    assert_eq!(check(&frame(2, 1, 0, b"")), Err(StreamError::Length(0)));
    // It is refused before it has come.
    assert_eq!(
        check(&frame(2, 1, u32::MAX, b"")),
        Err(StreamError::Length(u32::MAX))
    );
    assert_eq!(check(&frame(5, 1, 3, b"xxx")), Err(StreamError::Length(3)));
    assert_eq!(
        check(&frame(5, 1, 4, &u32::MAX.to_be_bytes())),
        Err(StreamError::Credit(1))
    );
    let mut too_much = frame(2, 1, 65_536, &vec![0; 65_536]);
    for _ in 0..8 {
        too_much.extend_from_slice(&frame(2, 1, 65_536, &vec![0; 65_536])[PREFACE.len()..]);
    }
    assert_eq!(check(&too_much), Err(StreamError::Credit(1)));
    let mut again = frame(3, 1, 0, b"");
    again.extend_from_slice(&frame(2, 1, 1, b"x")[PREFACE.len()..]);
    assert_eq!(check(&again), Err(StreamError::Stream(1)));
}

#[test]
fn the_agent_takes_so_many_streams_and_no_more() {
    let mut agent = Streams::agent();
    agent.receive(&PREFACE).unwrap();
    for number in 1..=u32::try_from(MOST_STREAMS).unwrap() {
        let mut open = Vec::new();
        push_head(&mut open, Kind::Open, StreamId(number), 0);
        agent.receive(&open).unwrap();
        // What is reset and not fetched counts as well.
        agent.reset(StreamId(number));
    }
    let mut open = Vec::new();
    push_head(&mut open, Kind::Open, StreamId(5_000), 0);
    assert_eq!(agent.receive(&open), Err(StreamError::TooMany));
}

/// What happens next in a model of a connection.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Send {
        from_app: bool,
        stream: usize,
        bytes: usize,
    },
    Finish {
        from_app: bool,
        stream: usize,
    },
    Reset {
        from_app: bool,
        stream: usize,
    },
    /// So many of the bytes that have come are used.
    Use {
        at_app: bool,
        stream: usize,
        bytes: usize,
    },
    /// A side hands so many bytes to its pipe.
    Write {
        from_app: bool,
        bytes: usize,
    },
    /// So many bytes come out of a pipe.
    Deliver {
        to_app: bool,
        bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (side, stream) = (any::<bool>(), 0..6_usize);
    prop_oneof![
        1 => Just(Step::Open),
        4 => (side, stream.clone(), 1..200_000_usize)
            .prop_map(|(from_app, stream, bytes)| Step::Send { from_app, stream, bytes }),
        1 => (side, stream.clone()).prop_map(|(from_app, stream)| Step::Finish { from_app, stream }),
        1 => (side, stream.clone()).prop_map(|(from_app, stream)| Step::Reset { from_app, stream }),
        4 => (side, stream, 1..300_000_usize)
            .prop_map(|(at_app, stream, bytes)| Step::Use { at_app, stream, bytes }),
        6 => (side, 1..200_000_usize).prop_map(|(from_app, bytes)| Step::Write { from_app, bytes }),
        8 => (side, 1..90_000_usize).prop_map(|(to_app, bytes)| Step::Deliver { to_app, bytes }),
    ]
}

/// What one direction of a stream has taken in, given out and used.
#[derive(Debug, Default, Clone)]
struct Ledger {
    sent: u64,
    arrived: u64,
    used: u64,
    is_finished: bool,
    was_finished: bool,
    was_reset: bool,
}

/// One side of the model, with a ledger for what it writes to each stream.
struct Model {
    streams: Streams,
    out: Pipe,
    ledgers: BTreeMap<StreamId, Ledger>,
}

/// Bytes that tell where in their stream they belong.
fn pattern(id: StreamId, from: u64, count: usize) -> Vec<u8> {
    let byte = |at: u64| u8::try_from((at * 31 + u64::from(id.0) * 7) % 251).unwrap();
    (from..).take(count).map(byte).collect()
}

impl Model {
    fn new(streams: Streams) -> Self {
        Self {
            streams,
            out: Pipe::default(),
            ledgers: BTreeMap::new(),
        }
    }

    fn send(&mut self, id: StreamId, bytes: usize) {
        let ledger = self.ledgers.entry(id).or_default();
        let taken = self.streams.send(id, &pattern(id, ledger.sent, bytes));
        assert!(taken == 0 || !ledger.is_finished);
        ledger.sent += taken as u64;
    }

    fn write(&mut self, bytes: usize) {
        let mut out = Vec::new();
        self.streams.fetch(&mut out, bytes);
        // Never much more than was asked for.
        assert!(out.len() < bytes + CHUNK + 64);
        self.out.0.extend(out);
    }

    fn deliver(&mut self, from: &mut Self, bytes: usize) {
        let count = bytes.min(from.out.0.len());
        let bytes: Vec<u8> = from.out.0.drain(..count).collect();
        for event in self.streams.receive(&bytes).unwrap() {
            match event {
                Event::Opened(id) => {
                    self.ledgers.entry(id).or_default();
                }
                Event::Arrived(id, bytes) => {
                    let ledger = from.ledgers.get_mut(&id).unwrap();
                    assert_eq!(bytes, pattern(id, ledger.arrived, bytes.len()), "{id:?}");
                    ledger.arrived += bytes.len() as u64;
                    assert!(ledger.arrived <= ledger.sent && !ledger.was_finished);
                    assert!(ledger.arrived - ledger.used <= u64::from(WINDOW));
                }
                Event::Finished(id) => {
                    let ledger = from.ledgers.get_mut(&id).unwrap();
                    assert!(ledger.is_finished && ledger.arrived == ledger.sent);
                    ledger.was_finished = true;
                }
                Event::Reset(id) => {
                    let ledger = from.ledgers.get_mut(&id).unwrap();
                    ledger.was_reset = true;
                }
            }
        }
    }
}

fn play(steps: Vec<Step>) {
    let (mut app, mut agent) = (Model::new(Streams::app()), Model::new(Streams::agent()));
    let mut ids = Vec::new();
    for step in steps {
        match step {
            Step::Open => {
                let id = app.streams.open().unwrap();
                app.ledgers.insert(id, Ledger::default());
                ids.push(id);
            }
            Step::Send {
                from_app,
                stream,
                bytes,
            } => {
                let Some(&id) = ids.get(stream) else { continue };
                if from_app {
                    app.send(id, bytes);
                } else if agent.streams.is_open(id) {
                    agent.send(id, bytes);
                }
            }
            Step::Finish { from_app, stream } => {
                let Some(&id) = ids.get(stream) else { continue };
                let side = if from_app { &mut app } else { &mut agent };
                if side.streams.room(id) > 0 || side.streams.is_open(id) {
                    side.streams.finish(id);
                    side.ledgers.entry(id).or_default().is_finished = true;
                }
            }
            Step::Reset { from_app, stream } => {
                let Some(&id) = ids.get(stream) else { continue };
                let side = if from_app { &mut app } else { &mut agent };
                side.streams.reset(id);
                for ledgers in [&mut app.ledgers, &mut agent.ledgers] {
                    ledgers.entry(id).or_default().was_reset = true;
                }
            }
            Step::Use {
                at_app,
                stream,
                bytes,
            } => {
                let Some(&id) = ids.get(stream) else { continue };
                let (user, writer) = if at_app {
                    (&mut app, &mut agent)
                } else {
                    (&mut agent, &mut app)
                };
                let Some(ledger) = writer.ledgers.get_mut(&id) else {
                    continue;
                };
                let bytes = (bytes as u64).min(ledger.arrived - ledger.used);
                ledger.used += bytes;
                user.streams.consume(id, usize::try_from(bytes).unwrap());
            }
            Step::Write { from_app, bytes } => {
                if from_app {
                    app.write(bytes);
                } else {
                    agent.write(bytes);
                }
            }
            Step::Deliver { to_app, bytes } => {
                if to_app {
                    app.deliver(&mut agent, bytes);
                } else {
                    agent.deliver(&mut app, bytes);
                }
            }
        }
    }
    // Once everybody reads, everything that was sent and not given up arrives, and every finish is heard.
    for _ in 0..200 {
        for to_app in [true, false] {
            let (to, from) = if to_app {
                (&mut app, &mut agent)
            } else {
                (&mut agent, &mut app)
            };
            from.write(usize::MAX >> 1);
            to.deliver(from, usize::MAX >> 1);
            for (&id, ledger) in &mut from.ledgers {
                let bytes = ledger.arrived - std::mem::replace(&mut ledger.used, ledger.arrived);
                to.streams.consume(id, usize::try_from(bytes).unwrap());
            }
        }
    }
    for model in [&app, &agent] {
        for (id, ledger) in &model.ledgers {
            if !ledger.was_reset {
                assert_eq!(ledger.arrived, ledger.sent, "{id:?}");
                assert_eq!(ledger.was_finished, ledger.is_finished, "{id:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_used_cut_and_delayed_every_stream_stays_whole(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        play(steps);
    }

    #[test]
    fn whatever_comes_is_taken_or_refused_and_kept_within_bounds(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        is_greeted in any::<bool>(),
        kinds in prop::collection::vec((0..9_u8, 0..4_u32, 0..70_000_u32), 0..20),
    ) {
        let mut agent = Streams::agent();
        if is_greeted {
            agent.receive(&PREFACE).unwrap();
        }
        let mut frames = kinds.into_iter();
        for mut piece in pieces {
            if let Some((kind, stream, length)) = frames.next() {
                let head = [&[kind][..], &stream.to_be_bytes(), &length.to_be_bytes()].concat();
                piece.splice(0..0, head);
            }
            if agent.receive(&piece).is_err() {
                break;
            }
            prop_assert!(agent.incoming.len() <= HEAD + CHUNK);
            agent.fetch(&mut Vec::new(), usize::MAX);
        }
    }
}
