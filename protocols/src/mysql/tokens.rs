//! The tokens of a statement, as far as a digest needs them
//! (<https://dev.mysql.com/doc/refman/8.4/en/language-structure.html>).

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A number or a string, or a place for one.
    Value,
    /// A word, a quoted name or a variable.
    Word(&'a [u8]),
    /// The beginning of a comment that servers execute, with its version: `/*!50000`.
    Opens(&'a [u8]),
    /// The end of one.
    Closes,
    /// Any other character.
    Sign(u8),
}

/// Reads tokens.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    /// Within a comment that servers execute.
    is_inside: bool,
    /// Whether space stood before the token that was read last.
    pub(super) spaced: bool,
}

impl<'a> Tokens<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            is_inside: false,
            spaced: false,
        }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is(*byte));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// Passes over what ends with this, or over all.
    fn skip_past(&mut self, end: &[u8]) {
        let at = self.rest.windows(end.len()).position(|it| it == end);
        self.take(at.map_or(self.rest.len(), |at| at + end.len()));
    }

    fn skip_space(&mut self) {
        self.spaced = false;
        loop {
            let before = self.rest.len();
            self.take_while(|byte| byte.is_ascii_whitespace() || byte == 0x0B);
            let ends_word = |at: usize| self.rest.get(at).is_none_or(|byte| *byte <= b' ');
            match self.rest {
                [b'#', ..] => self.skip_past(b"\n"),
                // Two dashes are a comment only where space follows.
                [b'-', b'-', ..] if ends_word(2) => self.skip_past(b"\n"),
                [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => {}
                [b'/', b'*', ..] => {
                    self.take(2);
                    self.skip_past(b"*/");
                }
                _ => {}
            }
            if self.rest.len() == before {
                return;
            }
            self.spaced = true;
        }
    }

    /// Passes over a string or a quoted name.
    fn quoted(&mut self, quote: u8) {
        self.take(1);
        let escapes = quote != b'`';
        loop {
            let is_plain = |byte| byte != quote && (byte != b'\\' || !escapes);
            self.take_while(is_plain);
            match self.rest {
                [] => return,
                [b'\\', ..] if escapes => self.take(2),
                [a, b, ..] if a == b => self.take(2),
                _ => {
                    self.take(1);
                    return;
                }
            };
        }
    }

    /// A word, or a string that a word begins: `x'00'`, `_utf8'a'`.
    fn word(&mut self) -> Token<'a> {
        let word = self.take_while(is_word);
        let is_prefix =
            word.starts_with(b"_") || matches!(word, [b'x' | b'X' | b'b' | b'B' | b'n' | b'N']);
        if is_prefix && let [quote @ (b'\'' | b'"'), ..] = *self.rest {
            self.quoted(quote);
            return Token::Value;
        }
        Token::Word(word)
    }

    /// A number, or a name that begins with a digit.
    fn number(&mut self) -> Token<'a> {
        if let Some(len) = number_len(self.rest) {
            self.take(len);
            return Token::Value;
        }
        match self.rest {
            [b'.', ..] => {
                self.take(1);
                Token::Sign(b'.')
            }
            _ => Token::Word(self.take_while(is_word)),
        }
    }

    fn executed_comment(&mut self) -> Token<'a> {
        let text = self.rest;
        self.take_while(|byte| byte != b'!');
        self.take(1);
        self.take_while(|byte| byte.is_ascii_digit());
        self.is_inside = true;
        let len = text.len() - self.rest.len();
        Token::Opens(text.get(..len).unwrap_or(text))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let text = self.rest;
        Some(match text {
            [] => return None,
            [quote @ (b'\'' | b'"'), ..] => {
                self.quoted(*quote);
                Token::Value
            }
            [b'`', ..] => {
                self.quoted(b'`');
                let len = text.len() - self.rest.len();
                Token::Word(text.get(..len).unwrap_or(text))
            }
            [b'/', b'*', ..] => self.executed_comment(),
            [b'*', b'/', ..] if self.is_inside => {
                self.take(2);
                self.is_inside = false;
                Token::Closes
            }
            [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => self.number(),
            [b'?', ..] => {
                self.take(1);
                Token::Value
            }
            [byte, ..] if is_word(*byte) => self.word(),
            [byte, ..] => {
                self.take(1);
                Token::Sign(*byte)
            }
        })
    }
}

/// Bytes of names, variables and of all that is not ASCII.
pub(super) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@' | 0x80..)
}

/// The length of a number that ends where it seems to: no letter and no point follows it.
pub(super) fn number_len(text: &[u8]) -> Option<usize> {
    let run = |at: usize, is: fn(&u8) -> bool| {
        let rest = text.get(at..).unwrap_or_default();
        rest.iter().position(|byte| !is(byte)).unwrap_or(rest.len())
    };
    let is_at = |at: usize, is: fn(&u8) -> bool| text.get(at).is_some_and(is);
    let len = match text {
        [b'0', b'x', ..] => 2 + some(run(2, u8::is_ascii_hexdigit))?,
        [b'0', b'b', ..] => 2 + some(run(2, |byte| matches!(byte, b'0' | b'1')))?,
        _ => {
            let mut len = run(0, u8::is_ascii_digit);
            if is_at(len, |byte| *byte == b'.') {
                let digits = run(len + 1, u8::is_ascii_digit);
                some(len + digits)?;
                len += 1 + digits;
            }
            some(len)?;
            if is_at(len, |byte| matches!(byte, b'e' | b'E')) {
                let sign = usize::from(is_at(len + 1, |byte| matches!(byte, b'+' | b'-')));
                len += 1 + sign + some(run(len + 1 + sign, u8::is_ascii_digit))?;
            }
            len
        }
    };
    let goes_on = is_at(len, |byte| is_word(*byte) || *byte == b'.');
    (!goes_on).then_some(len)
}

/// A length that is one.
fn some(len: usize) -> Option<usize> {
    Some(len).filter(|len| *len > 0)
}
