//! Matches listener, method, path and headers to a route, without allocating.

use std::collections::BTreeMap;
use std::ops::Range;

use crossdock_message::{ByteString, is_list_header};
use crossdock_ports::{Address, Fields, Head, Segment};

/// The index of a route, and the index of its entry.
type Target = (usize, usize);

/// The entries of a plan, by listener and path.
///
/// The match does not depend on the order in which entries were added: a literal segment takes precedence over a capture, a capture over the
/// rest of the path, and an entry with more header conditions over one with fewer.
#[derive(Debug, Default)]
pub struct Table {
    listeners: BTreeMap<ByteString, Vec<PathNode>>,
}

#[derive(Debug, Default)]
struct PathNode {
    literals: Vec<(ByteString, usize)>,
    capture: Option<usize>,
    here: Vec<Candidate>,
    rest: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    method: ByteString,
    /// The suffix of the path, after a colon.
    verb: Option<ByteString>,
    headers: Vec<(ByteString, ByteString)>,
    target: Target,
}

impl Candidate {
    /// The order of precedence: a verb before none, then more headers before fewer.
    fn rank(&self) -> impl Ord + '_ {
        (std::cmp::Reverse(self.verb.as_deref()), std::cmp::Reverse(self.headers.len()), &self.headers)
    }

    /// Whether a path ends with its verb, if it has one.
    fn matches_verb(&self, path: &str) -> bool {
        let before = |verb: &ByteString| path.strip_suffix(&**verb).and_then(|before| before.strip_suffix(':'));
        self.verb.as_ref().is_none_or(|verb| before(verb).is_some_and(|before| !before.ends_with('/')))
    }
}

/// The entry that a message matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The index of the route in the plan.
    pub route: usize,
    /// The index of the entry in the route.
    pub entry: usize,
}

/// Why a message matches no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// No entry has this path.
    Path,
    /// Entries with this path have another method or other header conditions.
    Method,
    /// A header in a condition of this path is repeated.
    RepeatedHeader(ByteString),
}

impl Table {
    /// Adds an entry.
    ///
    /// # Errors
    /// The entry that already matches exactly the same messages.
    pub fn add(&mut self, address: &Address, target: Target) -> Result<(), Target> {
        let nodes = self.listeners.entry(address.listener.clone()).or_insert_with(|| vec![PathNode::default()]);
        let mut at = 0;
        let mut rest = false;
        for segment in address.path.segments() {
            at = match segment {
                Segment::Literal(text) => match nodes[at].literals.binary_search_by(|(literal, _)| literal.cmp(text)) {
                    Ok(found) => nodes[at].literals[found].1,
                    Err(place) => {
                        let new = add_node(nodes);
                        nodes[at].literals.insert(place, (text.clone(), new));
                        new
                    }
                },
                Segment::Any => match nodes[at].capture {
                    Some(next) => next,
                    None => {
                        let new = add_node(nodes);
                        nodes[at].capture = Some(new);
                        new
                    }
                },
                Segment::Rest => {
                    rest = true;
                    at
                }
            };
        }
        let mut headers: Vec<_> =
            address.headers.iter().map(|condition| (condition.name.clone(), condition.value.clone())).collect();
        headers.sort();
        let list = if rest { &mut nodes[at].rest } else { &mut nodes[at].here };
        let new = Candidate { method: address.method.clone(), verb: address.path.verb().cloned(), headers, target };
        let same =
            |other: &&Candidate| other.method == new.method && other.verb == new.verb && other.headers == new.headers;
        if let Some(taken) = list.iter().find(same) {
            return Err(taken.target);
        }
        let place = list.partition_point(|other| other.rank() < new.rank());
        list.insert(place, new);
        Ok(())
    }

    /// Finds the entry that a message matches.
    ///
    /// # Errors
    /// [`Miss`] if there is none, or the target is not a path, such as the `*` of OPTIONS.
    pub fn find(&self, head: &Head<'_>) -> Result<Match, Miss> {
        let nodes = self.listeners.get(head.listener).filter(|_| head.path.starts_with('/')).ok_or(Miss::Path)?;
        let mut search = Search { nodes, head, seen_path: false, repeated_header: None };
        let found = search.descend(0, 1);
        if let Some(name) = search.repeated_header {
            return Err(Miss::RepeatedHeader(name));
        }
        match found {
            Some((route, entry)) => Ok(Match { route, entry }),
            None if search.seen_path => Err(Miss::Method),
            None => Err(Miss::Path),
        }
    }

    /// The methods of the entries on this path, for `Allow`.
    #[must_use]
    pub fn methods(&self, head: &Head<'_>) -> Vec<ByteString> {
        let mut methods: Vec<ByteString> = Vec::new();
        if let Some(nodes) = self.listeners.get(head.listener).filter(|_| head.path.starts_with('/')) {
            collect_methods(nodes, 0, head.path, 1, &mut methods);
        }
        methods.sort();
        methods.dedup();
        methods
    }
}

fn add_node(nodes: &mut Vec<PathNode>) -> usize {
    nodes.push(PathNode::default());
    nodes.len() - 1
}

/// The range of the segment that starts at `at`; `None` at the end of the path.
fn segment_at(path: &str, at: usize) -> Option<Range<usize>> {
    (at < path.len()).then(|| at..path[at..].find('/').map_or(path.len(), |slash| at + slash))
}

fn collect_methods(nodes: &[PathNode], node: usize, path: &str, at: usize, methods: &mut Vec<ByteString>) {
    let node = &nodes[node];
    let Some(segment) = segment_at(path, at) else {
        methods.extend(
            node.here.iter().filter(|candidate| candidate.matches_verb(path)).map(|candidate| candidate.method.clone()),
        );
        return;
    };
    let next = segment.end + 1;
    if let Ok(found) = node.literals.binary_search_by(|(literal, _)| (**literal).cmp(&path[segment.clone()])) {
        collect_methods(nodes, node.literals[found].1, path, next, methods);
    }
    if let Some(capture) = node.capture {
        collect_methods(nodes, capture, path, next, methods);
    }
    methods.extend(
        node.rest.iter().filter(|candidate| candidate.matches_verb(path)).map(|candidate| candidate.method.clone()),
    );
}

struct Search<'a> {
    nodes: &'a [PathNode],
    head: &'a Head<'a>,
    seen_path: bool,
    /// A repeated header in a condition of a candidate.
    repeated_header: Option<ByteString>,
}

impl Search<'_> {
    /// Visits each node at most once, because the nodes form a tree. The depth is that of the path templates.
    fn descend(&mut self, node: usize, at: usize) -> Option<Target> {
        let path = self.head.path;
        let node = &self.nodes[node];
        let Some(segment) = segment_at(path, at) else {
            return self.choose(&node.here);
        };
        let next = segment.end + 1;
        if let Ok(found) = node.literals.binary_search_by(|(literal, _)| (**literal).cmp(&path[segment.clone()]))
            && let Some(target) = self.descend(node.literals[found].1, next)
        {
            return Some(target);
        }
        if let Some(capture) = node.capture
            && let Some(target) = self.descend(capture, next)
        {
            return Some(target);
        }
        self.choose(&node.rest)
    }

    fn choose(&mut self, candidates: &[Candidate]) -> Option<Target> {
        let path = self.head.path;
        self.seen_path |= candidates.iter().any(|candidate| candidate.matches_verb(path));
        let fields: &dyn Fields = self.head.headers;
        let mut repeated = None;
        let mut holds = |(name, value): &(ByteString, ByteString)| {
            let is_repeated = fields.is_repeated(name);
            if is_repeated && !is_list_header(name) {
                repeated = Some(name.clone());
            }
            // A condition compares the whole value, so it does not match one of several.
            !is_repeated && fields.get(name) == Some(value.as_bytes())
        };
        let fits = |candidate: &&Candidate| {
            candidate.method == self.head.method
                && candidate.matches_verb(path)
                && candidate.headers.iter().all(&mut holds)
        };
        let found = candidates.iter().find(fits).map(|candidate| candidate.target);
        self.repeated_header = self.repeated_header.take().or(repeated);
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crossdock_message::RequestContext;
    use crossdock_ports::{HeaderCondition, NoFields, PathTemplate};
    use proptest::prelude::*;

    use super::*;

    fn address(method: &str, path: &str, headers: &[(&str, &str)]) -> Address {
        let condition = |(name, value): &(&str, &str)| HeaderCondition { name: (*name).into(), value: (*value).into() };
        Address {
            listener: "public".into(),
            method: method.into(),
            path: PathTemplate::parse(path).expect(path),
            headers: headers.iter().map(condition).collect(),
        }
    }

    struct One(&'static str, &'static str);

    impl Fields for One {
        fn get(&self, name: &str) -> Option<&[u8]> {
            (name == self.0).then_some(self.1.as_bytes())
        }
    }

    const ENTRIES: &[(&str, &str, &[(&str, &str)])] = &[
        ("GET", "/", &[]),
        ("GET", "/v1/orders", &[]),
        ("POST", "/v1/orders", &[]),
        ("GET", "/v1/orders/{id}", &[]),
        ("GET", "/v1/orders/latest", &[]),
        ("GET", "/v1/orders/{id}/lines/{line}", &[]),
        ("GET", "/v1/{kind}/special", &[]),
        ("GET", "/files/{path=**}", &[]),
        ("GET", "/v1/orders/{id}", &[("x-version", "2")]),
        ("POST", "/v1/orders/{id}:cancel", &[]),
        ("POST", "/v1/orders/{id}", &[]),
    ];

    fn table(order: &[usize]) -> Table {
        let mut table = Table::default();
        for &index in order {
            let (method, path, headers) = ENTRIES[index];
            table.add(&address(method, path, headers), (index, 0)).expect("no clash");
        }
        table
    }

    fn find(table: &Table, method: &str, path: &str, headers: &dyn Fields) -> Result<(usize, Vec<String>), Miss> {
        let context = &mut RequestContext::new("1".into(), Instant::now());
        let head = Head { context, listener: "public", method, path, headers, is_accepted: false };
        let found = table.find(&head)?;
        let template = PathTemplate::parse(ENTRIES[found.route].1).expect("a template");
        let bound = template.bind(path).map(|(_, range)| path[range].to_owned()).collect();
        Ok((found.route, bound))
    }

    #[test]
    fn the_most_specific_entry_matches() {
        let table = table(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let cases: &[(&str, &str, Result<(usize, &[&str]), Miss>)] = &[
            ("GET", "/", Ok((0, &[]))),
            ("GET", "/v1/orders", Ok((1, &[]))),
            ("POST", "/v1/orders", Ok((2, &[]))),
            ("GET", "/v1/orders/7", Ok((3, &["7"]))),
            ("GET", "/v1/orders/latest", Ok((4, &[]))),
            ("GET", "/v1/orders/7/lines/2", Ok((5, &["7", "2"]))),
            ("GET", "/v1/things/special", Ok((6, &["things"]))),
            ("GET", "/v1/orders/special", Ok((3, &["special"]))),
            ("GET", "/files/a/b/c", Ok((7, &["a/b/c"]))),
            ("GET", "/files", Err(Miss::Path)),
            ("DELETE", "/v1/orders/7", Err(Miss::Method)),
            ("GET", "/v1/orders/7/lines", Err(Miss::Path)),
            ("POST", "/v1/orders/7:cancel", Ok((9, &["7"]))),
            ("POST", "/v1/orders/7:other", Ok((10, &["7:other"]))),
            ("POST", "/v1/orders/:cancel", Ok((10, &[":cancel"]))),
            ("GET", "/nothing", Err(Miss::Path)),
        ];
        for (method, path, expected) in cases {
            let expected =
                expected.clone().map(|(route, names)| (route, names.iter().map(ToString::to_string).collect()));
            assert_eq!(find(&table, method, path, &NoFields), expected, "{method} {path}");
        }
        assert_eq!(find(&table, "GET", "/v1/orders/7", &One("x-version", "2")).map(|found| found.0), Ok(8));
        assert_eq!(find(&table, "GET", "/v1/orders/7", &One("x-version", "3")).map(|found| found.0), Ok(3));
        let context = &mut RequestContext::new("1".into(), Instant::now());
        let head = Head {
            context,
            listener: "public",
            method: "PUT",
            path: "/v1/orders",
            headers: &NoFields,
            is_accepted: false,
        };
        assert_eq!(table.methods(&head), ["GET", "POST"]);
    }

    #[test]
    fn a_duplicate_address_is_rejected() {
        let mut table = table(&[3]);
        assert_eq!(table.add(&address("GET", "/v1/orders/{other}", &[]), (9, 0)), Err((3, 0)));
    }

    proptest! {
        #[test]
        fn the_order_of_entries_does_not_matter(
            order in Just((0..ENTRIES.len()).collect::<Vec<_>>()).prop_shuffle(),
            path in "(/(v1|orders|latest|lines|files|special|7)){1,6}",
        ) {
            let sorted: Vec<usize> = (0..ENTRIES.len()).collect();
            for headers in [&NoFields as &dyn Fields, &One("x-version", "2")] {
                let expected = find(&table(&sorted), "GET", &path, headers);
                prop_assert_eq!(find(&table(&order), "GET", &path, headers), expected);
            }
        }
    }
}
