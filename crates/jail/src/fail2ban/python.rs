//! Reads regular expressions in Python's syntax.

/// What a part of an expression matches.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Empty,
    Literal(char),
    /// `.`
    Any,
    Class(Class),
    Anchor(Anchor),
    /// `(?i)` up to the end of the group that it stands in.
    Flags(String),
    Group {
        kind: Group,
        inner: Box<Node>,
    },
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat {
        inner: Box<Node>,
        min: u32,
        max: Option<u32>,
        mode: Mode,
    },
    BackReference(usize),
    Look {
        is_ahead: bool,
        is_negative: bool,
        inner: Box<Node>,
    },
    /// `(?(group)yes|no)`
    Condition {
        group: usize,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    LineStart,
    LineEnd,
    TextStart,
    TextEnd,
    Word,
    NotWord,
}

#[derive(Clone, Debug)]
pub(super) enum Group {
    /// Numbered from 1.
    Capture(usize),
    Plain,
    /// `(?i:…)`, `(?-i:…)`
    Flags(String),
    Atomic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Greedy,
    Lazy,
    Possessive,
}

/// A set of characters.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub(super) is_negated: bool,
    pub(super) items: Vec<Item>,
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Range(char, char),
    /// `d`, `D`, `w`, `W`, `s` or `S`.
    Perl(char),
}

/// A whole expression.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) root: Node,
    /// The names of groups; that of group 1 is the first.
    pub(super) names: Vec<Option<String>>,
}

/// Deepest nesting of groups.
const MAX_DEPTH: usize = 100;

/// Reads an expression. The error says what is wrong and at which character.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser {
        characters: text.chars().collect(),
        at: 0,
        names: Vec::new(),
        depth: 0,
        is_verbose: false,
    };
    let root = parser.choice()?;
    if parser.at < parser.characters.len() {
        return Err(parser.error("`)` without `(`"));
    }
    Ok(Expression { root, names: parser.names })
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    names: Vec<Option<String>>,
    depth: usize,
    is_verbose: bool,
}

impl Parser {
    fn error(&self, message: impl AsRef<str>) -> String {
        format!("{} at character {}", message.as_ref(), self.at + 1)
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = &self.characters[self.at..];
        let count = text.chars().count();
        let is_next = rest.len() >= count && text.chars().eq(rest[..count].iter().copied());
        self.at += if is_next { count } else { 0 };
        is_next
    }

    fn choice(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("groups are nested too deep"));
        }
        let mut branches = vec![self.sequence()?];
        while self.eat("|") {
            branches.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Choice(branches) })
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut parts = Vec::new();
        while let Some(next) = self.peek() {
            if matches!(next, '|' | ')') {
                break;
            }
            if self.is_verbose && next.is_ascii_whitespace() {
                self.at += 1;
                continue;
            }
            if self.is_verbose && next == '#' {
                while self.next().is_some_and(|skipped| skipped != '\n') {}
                continue;
            }
            let part = self.atom()?;
            parts.push(self.repeated(part)?);
        }
        Ok(match parts.len() {
            0 => Node::Empty,
            1 => parts.remove(0),
            _ => Node::Sequence(parts),
        })
    }

    fn atom(&mut self) -> Result<Node, String> {
        let Some(next) = self.next() else { return Ok(Node::Empty) };
        Ok(match next {
            '.' => Node::Any,
            '^' => Node::Anchor(Anchor::LineStart),
            '$' => Node::Anchor(Anchor::LineEnd),
            '(' => self.group()?,
            '[' => Node::Class(self.class()?),
            '\\' => self.escape()?,
            '*' | '+' | '?' => {
                self.at -= 1;
                return Err(self.error("nothing to repeat"));
            }
            '{' if self.count().is_some() => return Err(self.error("nothing to repeat")),
            literal => Node::Literal(literal),
        })
    }

    /// Reads what repeats an atom.
    fn repeated(&mut self, atom: Node) -> Result<Node, String> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                let Some(bounds) = self.count() else {
                    self.at -= 1;
                    return Ok(atom);
                };
                self.at -= 1;
                bounds
            }
            _ => return Ok(atom),
        };
        if matches!(atom, Node::Anchor(Anchor::LineStart | Anchor::TextStart) | Node::Flags(_)) {
            return Err(self.error("nothing to repeat"));
        }
        self.at += 1;
        if max.is_some_and(|max| max < min) {
            return Err(self.error("the least count is above the greatest"));
        }
        let mode = if self.eat("?") {
            Mode::Lazy
        } else if self.eat("+") {
            Mode::Possessive
        } else {
            Mode::Greedy
        };
        if matches!(self.peek(), Some('*' | '+' | '?')) {
            return Err(self.error("a repeat of a repeat"));
        }
        Ok(Node::Repeat { inner: Box::new(atom), min, max, mode })
    }

    /// Reads `2,5}`. Without such a count nothing is read, and the brace is itself.
    fn count(&mut self) -> Option<(u32, Option<u32>)> {
        let rest: String = self.characters[self.at..].iter().take(24).collect();
        let inner = &rest[..rest.find('}')?];
        let (min, max) = match inner.split_once(',') {
            Some((min, max)) => (min, Some(max)),
            None => (inner, None),
        };
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        let least: Option<u32> = number(min)?;
        let bounds = match max {
            None => (least?, Some(least?)),
            Some("") => (least.unwrap_or(0), None),
            Some(max) => (least.unwrap_or(0), Some(number(max)??)),
        };
        self.at += inner.chars().count() + 1;
        Some(bounds)
    }

    fn close(&mut self) -> Result<(), String> {
        if self.eat(")") { Ok(()) } else { Err(self.error("`(` without `)`")) }
    }

    fn group(&mut self) -> Result<Node, String> {
        if !self.eat("?") {
            return self.capture(None);
        }
        if self.eat("#") {
            while self.next().is_some_and(|skipped| skipped != ')') {}
            return Ok(Node::Empty);
        }
        if self.eat("P=") {
            let name = self.until(')')?;
            return self.named(&name).map(Node::BackReference);
        }
        if self.eat("P<") {
            let name = self.until('>')?;
            let is_name = name.chars().all(|part| part.is_alphanumeric() || part == '_')
                && name.chars().next().is_some_and(|first| !first.is_numeric());
            if !is_name {
                return Err(self.error(format!("`{name}` is no name of a group")));
            }
            if self.names.iter().flatten().any(|known| *known == name) {
                return Err(self.error(format!("group `{name}` stands here twice")));
            }
            return self.capture(Some(name));
        }
        if self.eat("(") {
            return self.condition();
        }
        let was_verbose = self.is_verbose;
        let looks =
            [("=", true, false), ("!", true, true), ("<=", false, false), ("<!", false, true)];
        for (sign, is_ahead, is_negative) in looks {
            if self.eat(sign) {
                let inner = Box::new(self.choice()?);
                self.close()?;
                self.is_verbose = was_verbose;
                return Ok(Node::Look { is_ahead, is_negative, inner });
            }
        }
        let kind = if self.eat(":") {
            Group::Plain
        } else if self.eat(">") {
            Group::Atomic
        } else {
            let start = self.at;
            while self.peek().is_some_and(|flag| flag.is_ascii_alphabetic() || flag == '-') {
                self.at += 1;
            }
            let flags: String = self.characters[start..self.at].iter().collect();
            self.flags(&flags)?;
            let kept: String =
                flags.chars().filter(|flag| matches!(flag, 'i' | 'm' | 's' | '-')).collect();
            let kept = kept.strip_suffix('-').unwrap_or(&kept).to_owned();
            if self.eat(")") {
                return Ok(if kept.is_empty() { Node::Empty } else { Node::Flags(kept) });
            }
            if !self.eat(":") {
                return Err(self.error("an unknown kind of group"));
            }
            if kept.is_empty() { Group::Plain } else { Group::Flags(kept) }
        };
        let inner = Box::new(self.choice()?);
        self.close()?;
        self.is_verbose = was_verbose;
        Ok(Node::Group { kind, inner })
    }

    /// Checks flags, and turns `x` on or off, with which blanks are no part of an expression.
    fn flags(&mut self, flags: &str) -> Result<(), String> {
        let mut is_on = true;
        for flag in flags.chars() {
            match flag {
                '-' => is_on = false,
                'x' => self.is_verbose = is_on,
                'i' | 'm' | 's' | 'u' | 'a' => {}
                _ => return Err(self.error(format!("flag `{flag}` is unknown"))),
            }
        }
        if flags.is_empty() { Err(self.error("an unknown kind of group")) } else { Ok(()) }
    }

    fn capture(&mut self, name: Option<String>) -> Result<Node, String> {
        self.names.push(name);
        let number = self.names.len();
        let was_verbose = self.is_verbose;
        let inner = Box::new(self.choice()?);
        self.close()?;
        self.is_verbose = was_verbose;
        Ok(Node::Group { kind: Group::Capture(number), inner })
    }

    fn condition(&mut self) -> Result<Node, String> {
        let name = self.until(')')?;
        let group = match name.parse() {
            Ok(number) => self.numbered(number)?,
            Err(_) => self.named(&name)?,
        };
        let (yes, no) = match self.choice()? {
            Node::Choice(mut branches) if branches.len() == 2 => {
                let no = branches.pop().unwrap_or(Node::Empty);
                (branches.pop().unwrap_or(Node::Empty), no)
            }
            Node::Choice(_) => return Err(self.error("a condition with more than two branches")),
            yes => (yes, Node::Empty),
        };
        self.close()?;
        Ok(Node::Condition { group, yes: Box::new(yes), no: Box::new(no) })
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let start = self.at;
        while let Some(next) = self.next() {
            if next == end {
                return Ok(self.characters[start..self.at - 1].iter().collect());
            }
        }
        Err(self.error(format!("expected `{end}`")))
    }

    fn named(&self, name: &str) -> Result<usize, String> {
        let place = self.names.iter().position(|known| known.as_deref() == Some(name));
        place
            .map(|place| place + 1)
            .ok_or_else(|| self.error(format!("there is no group `{name}`")))
    }

    fn numbered(&self, number: usize) -> Result<usize, String> {
        if (1..=self.names.len()).contains(&number) {
            Ok(number)
        } else {
            Err(self.error(format!("there is no group {number}")))
        }
    }

    fn escape(&mut self) -> Result<Node, String> {
        let anchor = |anchor| Ok(Node::Anchor(anchor));
        match self.peek() {
            Some('A') => self.taken(anchor(Anchor::TextStart)),
            Some('Z') => self.taken(anchor(Anchor::TextEnd)),
            Some('b') => self.taken(anchor(Anchor::Word)),
            Some('B') => self.taken(anchor(Anchor::NotWord)),
            Some('1'..='9') => {
                let start = self.at;
                while self.at < start + 2 && self.peek().is_some_and(|digit| digit.is_ascii_digit())
                {
                    self.at += 1;
                }
                let digits: String = self.characters[start..self.at].iter().collect();
                let number = digits.parse().map_err(|_| self.error("no number of a group"))?;
                self.numbered(number).map(Node::BackReference)
            }
            Some(class @ ('d' | 'D' | 'w' | 'W' | 's' | 'S')) => {
                self.at += 1;
                Ok(Node::Class(Class { is_negated: false, items: vec![Item::Perl(class)] }))
            }
            _ => self.character().map(Node::Literal),
        }
    }

    fn taken<T>(&mut self, value: T) -> T {
        self.at += 1;
        value
    }

    /// Reads the character after a backslash.
    fn character(&mut self) -> Result<char, String> {
        let Some(next) = self.next() else { return Err(self.error("a backslash at the end")) };
        let digits = match next {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'f' => return Ok('\x0c'),
            'v' => return Ok('\x0b'),
            'a' => return Ok('\x07'),
            '0' => {
                let start = self.at;
                while self.at < start + 2 && matches!(self.peek(), Some('0'..='7')) {
                    self.at += 1;
                }
                let octal: String = self.characters[start..self.at].iter().collect();
                return Ok(char::from(u8::from_str_radix(&octal, 8).unwrap_or(0)));
            }
            'x' => 2,
            'u' => 4,
            'U' => 8,
            letter if letter.is_ascii_alphabetic() => {
                return Err(self.error(format!("`\\{letter}` has no meaning")));
            }
            literal => return Ok(literal),
        };
        let end = (self.at + digits).min(self.characters.len());
        let hexadecimal: String = self.characters[self.at..end].iter().collect();
        self.at = end;
        let code =
            u32::from_str_radix(&hexadecimal, 16).ok().filter(|_| hexadecimal.len() == digits);
        code.and_then(char::from_u32).ok_or_else(|| self.error("no code of a character"))
    }

    fn class(&mut self) -> Result<Class, String> {
        let mut class = Class { is_negated: self.eat("^"), items: Vec::new() };
        loop {
            let Some(next) = self.next() else { return Err(self.error("`[` without `]`")) };
            if next == ']' && !class.items.is_empty() {
                return Ok(class);
            }
            let Some(low) = self.member(next, &mut class)? else { continue };
            let is_range = self.peek() == Some('-')
                && self.characters.get(self.at + 1).is_some_and(|&end| end != ']');
            if !is_range {
                class.items.push(Item::Range(low, low));
                continue;
            }
            self.at += 1;
            let end = self.next().unwrap_or(']');
            match self.member(end, &mut class)? {
                Some(high) if low <= high => class.items.push(Item::Range(low, high)),
                _ => return Err(self.error("a range of characters that is none")),
            }
        }
    }

    /// Reads a character in a class; a class such as `\d` in a class is taken and gives nothing.
    fn member(&mut self, first: char, class: &mut Class) -> Result<Option<char>, String> {
        if first != '\\' {
            return Ok(Some(first));
        }
        match self.peek() {
            Some(perl @ ('d' | 'D' | 'w' | 'W' | 's' | 'S')) => {
                self.at += 1;
                class.items.push(Item::Perl(perl));
                Ok(None)
            }
            Some('b') => self.taken(Ok(Some('\x08'))),
            Some('1'..='7') => {
                let digit = self.next().and_then(|digit| digit.to_digit(8)).unwrap_or(0);
                Ok(char::from_u32(digit))
            }
            _ => self.character().map(Some),
        }
    }
}
