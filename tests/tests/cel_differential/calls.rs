//! Calls and operators that return a value of each sort.

use super::*;

impl Generator {
    pub(super) fn of_int(&mut self, depth: u32) -> Tree {
        let (list, map) = (Sort::list(Sort::Int), Sort::map(Sort::Text, Sort::Int));
        let part: &str = self.pick(&[
            "getFullYear",
            "getMonth",
            "getDate",
            "getDayOfMonth",
            "getDayOfWeek",
            "getDayOfYear",
            "getHours",
            "getMinutes",
            "getSeconds",
            "getMilliseconds",
        ]);
        match self.rng.random_range(0..10) {
            0..4 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ + §)", &[Sort::Int, Sort::Int]),
                    ("(§ - §)", &[Sort::Int, Sort::Int]),
                    ("(§ * §)", &[Sort::Int, Sort::Int]),
                    ("(§ / §)", &[Sort::Int, Sort::Int]),
                    ("(§ % §)", &[Sort::Int, Sort::Int]),
                    ("(-§)", &[Sort::Int]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            4..6 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("int(§)", &[Sort::UInt]),
                    ("int(§)", &[Sort::Double]),
                    ("int(§ + '')", &[Sort::Text]),
                    ("int(§)", &[Sort::Time]),
                    ("size(§)", &[Sort::Text]),
                    ("size(§)", &[Sort::Bytes]),
                    ("§.size()", std::slice::from_ref(&list)),
                    ("size(§)", std::slice::from_ref(&map)),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            6 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("math.greatest(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.least(§)", std::slice::from_ref(&list)),
                    ("math.least(§, §, §)", &[Sort::Int, Sort::Int, Sort::Int]),
                    ("math.abs(§)", &[Sort::Int]),
                    ("math.sign(§)", &[Sort::Int]),
                    ("math.bitAnd(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitOr(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitXor(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitNot(§)", &[Sort::Int]),
                    ("math.bitShiftLeft(§, §)", &[Sort::Int, Sort::Int]),
                    ("math.bitShiftRight(§, §)", &[Sort::Int, Sort::Int]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            7 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.indexOf(§)", &[Sort::Text, Sort::Text]),
                    ("§.indexOf(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                    ("§.lastIndexOf(§)", &[Sort::Text, Sort::Text]),
                    ("§.lastIndexOf(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                    ("(§ + 'béa').indexOf(§, 2)", &[Sort::Text, Sort::Text]),
                    ("(§ + 'béa').lastIndexOf(§, 2)", &[Sort::Text, Sort::Text]),
                ];
                self.one_of(Sort::Int, calls, depth)
            }
            8 => match self.rng.random_range(0..3) {
                0 => self.call(Sort::Int, &format!("§.{part}()"), &[Sort::Time], depth),
                1 => {
                    let zone = self.pick(ZONES);
                    self.call(Sort::Int, &format!("§.{part}('{zone}')"), &[Sort::Time], depth)
                }
                _ => {
                    let part = self.pick(&["getHours", "getMinutes", "getSeconds", "getMilliseconds"]);
                    let tree = self.call(Sort::Int, &format!("§.{part}()"), &[Sort::Duration], depth);
                    tree.without(Quirk::GoDurationParts)
                }
            },
            _ => self.any(&Sort::Int, depth),
        }
    }

    pub(super) fn of_uint(&mut self, depth: u32) -> Tree {
        let two = &[Sort::UInt, Sort::UInt];
        let shift = &[Sort::UInt, Sort::Int];
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", two),
            ("(§ - §)", two),
            ("(§ * §)", two),
            ("(§ / §)", two),
            ("(§ % §)", two),
            ("uint(§)", &[Sort::Int]),
            ("uint(§)", &[Sort::Double]),
            ("uint(§ + '')", &[Sort::Text]),
            ("math.greatest(§, §)", two),
            ("math.least(§, §)", two),
            ("math.abs(§)", &[Sort::UInt]),
            ("math.sign(§)", &[Sort::UInt]),
            ("math.bitAnd(§, §)", two),
            ("math.bitOr(§, §)", two),
            ("math.bitXor(§, §)", two),
            ("math.bitNot(§)", &[Sort::UInt]),
            ("math.bitShiftLeft(§, §)", shift),
            ("math.bitShiftRight(§, §)", shift),
        ];
        self.one_of(Sort::UInt, calls, depth)
    }

    pub(super) fn of_double(&mut self, depth: u32) -> Tree {
        let one = &[Sort::Double];
        let two = &[Sort::Double, Sort::Double];
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", two),
            ("(§ - §)", two),
            ("(§ * §)", two),
            ("(§ / §)", two),
            ("(-§)", one),
            ("double(§)", &[Sort::Int]),
            ("double(§)", &[Sort::UInt]),
            ("double(§ + '')", &[Sort::Text]),
            ("math.greatest(§, §)", two),
            ("math.least(§, §)", two),
            ("math.abs(§)", one),
            ("math.sign(§)", one),
            ("math.ceil(§)", one),
            ("math.floor(§)", one),
            ("math.round(§)", one),
            ("math.trunc(§)", one),
            ("math.sqrt(§)", one),
            ("math.sqrt(§)", &[Sort::Int]),
        ];
        let tree = self.one_of(Sort::Double, calls, depth);
        let text = tree.text();
        let is_extreme = text.starts_with("math.greatest") || text.starts_with("math.least");
        if is_extreme { tree.without(Quirk::CppExtremesOfNaN) } else { tree }
    }

    pub(super) fn of_text(&mut self, depth: u32) -> Tree {
        let one = &[Sort::Text];
        let list = Sort::list(Sort::Text);
        match self.rng.random_range(0..10) {
            0..2 => self.call(Sort::Text, "(§ + §)", &[Sort::Text, Sort::Text], depth),
            2..4 => {
                match self.scalar() {
                    // Evaluators differ in when they write a double with an exponent.
                    Sort::Double => self.call(Sort::Text, "string(double(§ % 1000000) / 8.0)", &[Sort::Int], depth),
                    of @ Sort::Duration => {
                        self.call(Sort::Text, "string(§)", &[of], depth).without(Quirk::GoDurationText)
                    }
                    of @ Sort::Time => self.call(Sort::Text, "string(§)", &[of], depth).without(Quirk::GoTimeText),
                    of => self.call(Sort::Text, "string(§)", &[of], depth),
                }
            }
            4..8 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.charAt(§)", &[Sort::Text, Sort::Int]),
                    ("§.substring(§)", &[Sort::Text, Sort::Int]),
                    ("§.substring(§, §)", &[Sort::Text, Sort::Int, Sort::Int]),
                    ("§.replace(§, §)", &[Sort::Text, Sort::Text, Sort::Text]),
                    ("§.replace(§, §, §)", &[Sort::Text, Sort::Text, Sort::Text, Sort::Int]),
                    ("§.lowerAscii()", one),
                    ("§.upperAscii()", one),
                    ("§.trim()", one),
                    ("§.reverse()", one),
                    ("strings.quote(§)", one),
                    ("§.join()", std::slice::from_ref(&list)),
                    ("§.join(§)", &[list.clone(), Sort::Text]),
                    ("base64.encode(§)", &[Sort::Bytes]),
                ];
                self.one_of(Sort::Text, calls, depth)
            }
            8 => {
                let (pattern, of) = match self.rng.random_range(0..10) {
                    8 => ("'%s'.format([§])", vec![Sort::map(Sort::Text, Sort::Int)]),
                    0 => ("'%d|%d'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    1 => ("'%x %X'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    2 => ("'%b-%o%%'.format([§, §])", vec![Sort::Int, Sort::Int]),
                    3 => ("'%.2f'.format([§])", vec![Sort::Double]),
                    4 => ("'%.3e'.format([§])", vec![Sort::Double]),
                    5 => ("'%x'.format([§])", vec![Sort::Bytes]),
                    6 => ("'%f'.format([§])", vec![Sort::Double]),
                    7 => ("'%s'.format([§])", vec![Sort::list(Sort::Text)]),
                    _ => {
                        let of = self.pick(&[Sort::Int, Sort::UInt, Sort::Text, Sort::Bytes, Sort::Bool]);
                        if of == Sort::Bytes {
                            // cel-go makes invalid strings of bytes that are not UTF-8.
                            ("'<%s>'.format([bytes(§)])", vec![Sort::Text])
                        } else {
                            ("'<%s>'.format([§])", vec![of])
                        }
                    }
                };
                self.call(Sort::Text, pattern, &of, depth)
            }
            _ => self.any(&Sort::Text, depth),
        }
    }

    pub(super) fn of_bytes(&mut self, depth: u32) -> Tree {
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", &[Sort::Bytes, Sort::Bytes]),
            ("bytes(§)", &[Sort::Text]),
            ("bytes(§)", &[Sort::Bytes]),
            ("base64.decode(§)", &[Sort::Text]),
            ("base64.decode(base64.encode(§))", &[Sort::Bytes]),
        ];
        self.one_of(Sort::Bytes, calls, depth)
    }

    pub(super) fn of_time(&mut self, depth: u32) -> Tree {
        match self.rng.random_range(0..5) {
            0 => {
                let text = self.pick(&[
                    "2024-02-29T12:00:00+05:45",
                    "2023-02-29T12:00:00Z",
                    "2024-06-30T23:59:59.1-11:00",
                    "1970-01-01",
                    "0001-01-01T00:00:00Z",
                    "9999-12-31T23:59:59.999999999Z",
                    "10000-01-01T00:00:00Z",
                ]);
                Tree::leaf(Sort::Time, format!("timestamp('{text}')"))
            }
            1 => self.call(Sort::Time, "timestamp(§)", &[Sort::Int], depth),
            _ => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ + §)", &[Sort::Time, Sort::Duration]),
                    ("(§ + §)", &[Sort::Duration, Sort::Time]),
                    ("(§ - §)", &[Sort::Time, Sort::Duration]),
                    ("timestamp(string(§))", &[Sort::Time]),
                ];
                self.one_of(Sort::Time, calls, depth)
            }
        }
    }

    pub(super) fn of_duration(&mut self, depth: u32) -> Tree {
        if self.chance(25) {
            let text = self.pick(&[
                "1h30m",
                "-1.5s",
                "100ms",
                "1us",
                "-7ns",
                "0",
                "1.000000001s",
                "2540400h",
                "1d",
                "",
                "5",
                "+3m",
                "1h-1m",
            ]);
            return Tree::leaf(Sort::Duration, format!("duration('{text}')"));
        }
        let calls: &[(&str, &[Sort])] = &[
            ("(§ + §)", &[Sort::Duration, Sort::Duration]),
            ("(§ - §)", &[Sort::Duration, Sort::Duration]),
            ("(§ - §)", &[Sort::Time, Sort::Time]),
            ("duration(string(§))", &[Sort::Duration]),
        ];
        self.one_of(Sort::Duration, calls, depth)
    }

    pub(super) fn of_bool(&mut self, depth: u32) -> Tree {
        let list = Sort::list(Sort::Int);
        match self.rng.random_range(0..16) {
            0..3 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("(§ && §)", &[Sort::Bool, Sort::Bool]),
                    ("(§ || §)", &[Sort::Bool, Sort::Bool]),
                    ("(§ && § && §)", &[Sort::Bool, Sort::Bool, Sort::Bool]),
                    ("(§ || § || §)", &[Sort::Bool, Sort::Bool, Sort::Bool]),
                    ("!§", &[Sort::Bool]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            3..5 => {
                let of = self.scalar();
                let operator = self.pick(&["<", "<=", ">", ">="]);
                self.call(Sort::Bool, &format!("(§ {operator} §)"), &[of.clone(), of], depth)
            }
            5..7 => {
                let sorts = [
                    self.scalar(),
                    Sort::list(Sort::Double),
                    Sort::list(Sort::Text),
                    Sort::map(Sort::Text, Sort::Int),
                    Sort::optional(Sort::Int),
                ];
                let of = self.pick(&sorts);
                let operator = self.pick(&["==", "!="]);
                self.call(Sort::Bool, &format!("(§ {operator} §)"), &[of.clone(), of], depth)
            }
            7 => self.of_mixed_numbers(depth),
            8 => {
                let of = self.scalar();
                let key = Sort::map(Sort::Text, Sort::Int);
                match self.rng.random_range(0..3) {
                    0 => self.call(Sort::Bool, "(§ in §)", &[of.clone(), Sort::list(of)], depth),
                    1 => self.call(Sort::Bool, "(§ in §)", &[Sort::Text, key], depth),
                    _ => self.call(Sort::Bool, "(§ in §)", &[Sort::Int, Sort::map(Sort::Int, Sort::Text)], depth),
                }
            }
            9 => {
                let pattern = self.pick(&["has(§.a)", "has(§.key)", "has(§.b)"]);
                self.call(Sort::Bool, pattern, &[Sort::map(Sort::Text, Sort::Int)], depth)
            }
            10 => {
                if self.chance(30) {
                    // Not a literal, which ours would reject at check time even if it is never evaluated.
                    let pattern = self.pick(PATTERNS);
                    return self.call(Sort::Bool, &format!("§.matches('{pattern}' + '')"), &[Sort::Text], depth);
                }
                let calls: &[(&str, &[Sort])] = &[
                    ("§.contains(§)", &[Sort::Text, Sort::Text]),
                    ("§.startsWith(§)", &[Sort::Text, Sort::Text]),
                    ("§.endsWith(§)", &[Sort::Text, Sort::Text]),
                    ("bool(§)", &[Sort::Text]),
                    ("math.isNaN(§)", &[Sort::Double]),
                    ("math.isInf(§)", &[Sort::Double]),
                    ("math.isFinite(§)", &[Sort::Double]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            11 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("sets.contains(§, §)", &[list.clone(), list.clone()]),
                    ("sets.equivalent(§, §)", &[list.clone(), list.clone()]),
                    ("sets.intersects(§, §)", &[list.clone(), list.clone()]),
                    ("sets.intersects(§, §)", &[Sort::list(Sort::Double), Sort::list(Sort::Double)]),
                    ("sets.contains(§, §)", &[Sort::list(Sort::Text), Sort::list(Sort::Text)]),
                    ("§.hasValue()", &[Sort::optional(Sort::Int)]),
                    ("§.hasValue()", &[Sort::optional(Sort::Text)]),
                ];
                self.one_of(Sort::Bool, calls, depth)
            }
            12 => {
                let of = self.scalar();
                let name =
                    self.pick(&["int", "uint", "double", "string", "bytes", "bool", "google.protobuf.Timestamp"]);
                self.call(Sort::Bool, &format!("(type(§) == {name})"), &[of], depth)
            }
            _ => self.of_quantifier(depth),
        }
    }

    /// A comparison of numbers of different sorts.
    ///
    /// Integers that are compared with doubles stay within 53 bits, as ours compares larger ones exactly (see `cel_differential.rs`).
    pub(super) fn of_mixed_numbers(&mut self, depth: u32) -> Tree {
        let operator = self.pick(&["==", "!=", "<", "<=", ">", ">="]);
        match self.rng.random_range(0..9) {
            6 => self.call(Sort::Bool, "(dyn(§) in {1: 'a', 2: 'b', 7: 'c'})", &[Sort::Double], depth),
            7 => self.call(Sort::Bool, "({1u: 'a', 3u: 'b'}[dyn(§)] == §)", &[Sort::Int, Sort::Text], depth),
            8 => self.call(Sort::Bool, "(§[dyn(§)] == §)", &[Sort::list(Sort::Int), Sort::Double, Sort::Int], depth),
            0 => self.call(Sort::Bool, &format!("(dyn(§) {operator} §)"), &[Sort::Int, Sort::UInt], depth),
            1 => self.call(Sort::Bool, &format!("(§ {operator} dyn(§))"), &[Sort::Int, Sort::UInt], depth),
            2 => {
                let pattern = format!("(dyn(§ % 9007199254740992) {operator} §)");
                self.call(Sort::Bool, &pattern, &[Sort::Int, Sort::Double], depth)
            }
            3 => {
                let pattern = format!("(dyn(§) {operator} § % 9007199254740992u)");
                self.call(Sort::Bool, &pattern, &[Sort::Double, Sort::UInt], depth)
            }
            4 => self.call(Sort::Bool, "(dyn(§) in §)", &[Sort::UInt, Sort::list(Sort::Int)], depth),
            _ => self.call(Sort::Bool, "(dyn([§]) == [§])", &[Sort::UInt, Sort::Int], depth),
        }
    }

    pub(super) fn of_quantifier(&mut self, depth: u32) -> Tree {
        let macro_name = self.pick(&["all", "exists", "exists_one"]);
        let of = self.pick(&[Sort::Int, Sort::Text, Sort::Double]);
        let name = self.name();
        match self.rng.random_range(0..4) {
            0..2 => {
                let range = self.tree(&Sort::list(of.clone()), depth - 1);
                let body = self.within(&[(&name, of)], &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, §)"), vec![range, body])
            }
            2 => {
                let range = self.tree(&Sort::map(Sort::Text, Sort::Int), depth - 1);
                let body = self.within(&[(&name, Sort::Text)], &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, §)"), vec![range, body])
            }
            _ => {
                let macro_name = if macro_name == "exists_one" { "existsOne" } else { macro_name };
                let (range, locals) = if self.chance(50) {
                    (Sort::list(of.clone()), [(&*name, Sort::Int), ("w", of)])
                } else {
                    (Sort::map(Sort::Text, Sort::Int), [(&*name, Sort::Text), ("w", Sort::Int)])
                };
                let range = self.tree(&range, depth - 1);
                let body = self.within(&locals, &Sort::Bool, depth - 1);
                Tree::of(Sort::Bool, &format!("§.{macro_name}({name}, w, §)"), vec![range, body])
            }
        }
    }

    pub(super) fn of_list(&mut self, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::list(of.clone());
        let name = self.name();
        match self.rng.random_range(0..14) {
            0..2 => {
                let len = self.rng.random_range(0..4);
                self.list_literal(of, len, depth)
            }
            2 => self.call(sort.clone(), "(§ + §)", &[sort.clone(), sort], depth),
            3..5 => {
                let from = self.pick(&[Sort::Int, Sort::Text, Sort::UInt, Sort::Double]);
                let range = self.tree(&Sort::list(from.clone()), depth - 1);
                let body = self.within(&[(&name, from.clone())], of, depth - 1);
                if self.chance(70) {
                    return Tree::of(sort, &format!("§.map({name}, §)"), vec![range, body]);
                }
                let filter = self.within(&[(&name, from)], &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.map({name}, §, §)"), vec![range, filter, body])
            }
            5..7 => {
                let range = self.tree(&sort, depth - 1);
                let body = self.within(&[(&name, of.clone())], &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.filter({name}, §)"), vec![range, body])
            }
            7 => {
                let range = self.tree(&Sort::list(Sort::Int), depth - 1);
                let locals = [(&*name, Sort::Int), ("w", Sort::Int)];
                let body = self.within(&locals, of, depth - 1);
                if self.chance(60) {
                    return Tree::of(sort, &format!("§.transformList({name}, w, §)"), vec![range, body]);
                }
                let filter = self.within(&locals, &Sort::Bool, depth - 1);
                Tree::of(sort, &format!("§.transformList({name}, w, §, §)"), vec![range, filter, body])
            }
            8 => self.call(sort.clone(), "§.reverse()", &[sort], depth),
            9 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.slice(§, §)", &[sort.clone(), Sort::Int, Sort::Int]),
                    ("§.distinct()", std::slice::from_ref(&sort)),
                ];
                self.one_of(sort.clone(), calls, depth)
            }
            10 if matches!(of, Sort::Int | Sort::UInt | Sort::Text) => {
                if self.chance(60) {
                    return self.call(sort.clone(), "§.sort()", &[sort], depth);
                }
                let range = self.tree(&sort, depth - 1);
                let key = self.pick(&[Sort::Int, Sort::Text, Sort::Bool]);
                let body = self.within(&[(&name, of.clone())], &key, depth - 1);
                Tree::of(sort, &format!("§.sortBy({name}, §)"), vec![range, body])
            }
            11 => self.call(sort.clone(), "§.flatten()", &[Sort::list(sort)], depth),
            12 => match of {
                Sort::Int => {
                    let pattern = self.pick(&["lists.range(§ % 6)", "lists.range(math.abs(§ % 6))"]);
                    self.call(sort, pattern, &[Sort::Int], depth)
                }
                Sort::Text => {
                    let calls: &[(&str, &[Sort])] = &[
                        ("§.split(§)", &[Sort::Text, Sort::Text]),
                        ("§.split(§, §)", &[Sort::Text, Sort::Text, Sort::Int]),
                        // Sorted, as the order of map entries is undefined.
                        ("§.map(o, o).sort()", &[Sort::map(Sort::Text, Sort::Int)]),
                    ];
                    self.one_of(sort, calls, depth)
                }
                _ => self.call(sort.clone(), "optional.unwrap(§)", &[Sort::list(Sort::optional(of.clone()))], depth),
            },
            _ => self.call(sort, "[§].unwrapOpt()", &[Sort::optional(of.clone())], depth),
        }
    }

    pub(super) fn of_map(&mut self, key: &Sort, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::map(key.clone(), of.clone());
        let name = self.name();
        let range_sort = match key {
            Sort::Int if self.chance(70) => Sort::list(Sort::Int),
            key => Sort::map(key.clone(), Sort::Int),
        };
        match self.rng.random_range(0..4) {
            0..2 => self.map_literal(key, of, depth),
            2 => {
                let range = self.tree(&range_sort, depth - 1);
                let locals = [(&*name, key.clone()), ("w", Sort::Int)];
                let body = self.within(&locals, of, depth - 1);
                if self.chance(60) {
                    Tree::of(sort, &format!("§.transformMap({name}, w, §)"), vec![range, body])
                } else {
                    let filter = self.within(&locals, &Sort::Bool, depth - 1);
                    Tree::of(sort, &format!("§.transformMap({name}, w, §, §)"), vec![range, filter, body])
                }
            }
            _ => {
                let range = self.tree(&range_sort, depth - 1);
                let locals = [(&*name, key.clone()), ("w", Sort::Int)];
                let new_key = self.within(&locals, key, (depth - 1).min(1));
                let body = self.within(&locals, of, depth - 1);
                let pattern = format!("§.transformMapEntry({name}, w, {{§: §}})");
                Tree::of(sort, &pattern, vec![range, new_key, body])
            }
        }
    }

    pub(super) fn of_optional(&mut self, of: &Sort, depth: u32) -> Tree {
        let sort = Sort::optional(of.clone());
        let (list, map) = (Sort::list(of.clone()), Sort::map(Sort::Text, of.clone()));
        let name = self.name();
        match self.rng.random_range(0..8) {
            0 => self.call(sort, "optional.of(§)", std::slice::from_ref(of), depth),
            // cel-go's zero timestamp is year 1, not 1970.
            1 if *of != Sort::Time => self.call(sort, "optional.ofNonZeroValue(§)", std::slice::from_ref(of), depth),
            2..5 => {
                let calls: &[(&str, &[Sort])] = &[
                    ("§.?a", std::slice::from_ref(&map)),
                    ("§[?'é']", std::slice::from_ref(&map)),
                    ("§[?§]", &[map.clone(), Sort::Text]),
                    ("§[?§]", &[list.clone(), Sort::Int]),
                    ("§.first()", std::slice::from_ref(&list)),
                    ("§.last()", std::slice::from_ref(&list)),
                    ("optional.of(§).a", std::slice::from_ref(&map)),
                    ("optional.of(§)[§]", &[list.clone(), Sort::Int]),
                ];
                self.one_of(sort, calls, depth)
            }
            5 => self.call(sort.clone(), "§.or(§)", &[sort.clone(), sort], depth),
            _ => {
                let from = self.pick(&[Sort::Int, Sort::Text]);
                let optional = self.tree(&Sort::optional(from.clone()), depth - 1);
                let flat = self.chance(40);
                let body_sort = if flat { &sort } else { of };
                let body = self.within(&[(&name, from)], body_sort, depth - 1);
                let call = if flat { "optFlatMap" } else { "optMap" };
                Tree::of(sort, &format!("§.{call}({name}, §)"), vec![optional, body])
            }
        }
    }
}
