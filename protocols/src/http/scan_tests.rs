use super::super::responses::{Asked, Event, Responses};
use super::super::settings::Settings;
use super::*;

fn rules(text: &str) -> Vec<TokenRule> {
    Settings::parse(&format!("[[token]]\n{text}"))
        .unwrap()
        .token
}

fn head(fields: &str) -> ResponseHead {
    let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 1\r\n\r\n");
    match Responses::default().read(text.as_bytes(), Asked::Other, true) {
        Ok((_, Event::Head { head, .. })) => head,
        other => panic!("{other:?}"),
    }
}

/// What a rule finds in a body that comes in pieces of any size, as long as it is the same for all.
fn find_in(rule: &str, body: &str) -> Option<String> {
    let rules = rules(rule);
    let found = |piece: usize| {
        let mut scan = Scan::new(&rules, &head(""), |_| true).unwrap();
        let mut values = Vec::new();
        for data in body.as_bytes().chunks(piece) {
            values.extend(scan.read(&rules, data, false));
        }
        // As where chunks end.
        values.extend(scan.read(&rules, b"", true));
        assert!(scan.window.len() <= 3 * LONGEST_VALUE);
        let first = values.pop();
        first.map(|(_, value)| String::from_utf8(value).unwrap())
    };
    let whole = found(body.len().max(1));
    for piece in (1..body.len()).take(100) {
        assert_eq!(found(piece), whole, "pieces of {piece}");
    }
    whole
}

#[test]
fn values_of_heads_are_cut_as_the_rule_says() {
    let head = head(
        "Set-Cookie: sid2=x\r\nSet-Cookie: sid=old; Path=/\r\nset-cookie: sid=a=b; HttpOnly\r\n\
         Location: /orders/17/edit\r\nEmpty:\r\n",
    );
    let value = |rule: &str| {
        let value = in_head(&rules(rule)[0], &head);
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(value("from = 'cookie:sid'").unwrap(), "a=b");
    assert_eq!(value("from = 'cookie:other'"), None);
    assert_eq!(
        value("from = 'header:location'").unwrap(),
        "/orders/17/edit"
    );
    let cut = "from = 'header:Location'\nafter = '/orders/'";
    assert_eq!(value(cut).unwrap(), "17/edit");
    assert_eq!(value(&format!("{cut}\nbefore = '/'")).unwrap(), "17");
    assert_eq!(value(&format!("{cut}\nbefore = '?'")), None);
    assert_eq!(value("from = 'header:Empty'"), None);
}

#[test]
fn values_of_bodies_are_found_in_any_pieces() {
    let body = "from = 'body'\nafter = \"csrf('\"\nbefore = \"')\"";
    assert_eq!(
        find_in(body, "xcsrf('csrf('abc') csrf('d')").unwrap(),
        "csrf('abc"
    );
    assert_eq!(find_in(body, "csrf('abc'"), None);
    let json = "from = 'json:token'";
    assert_eq!(
        find_in(json, r#"["token", {"a": {"token" : "a\/b\u003d"}}]"#).unwrap(),
        "a/b="
    );
    assert_eq!(
        find_in(json, r#"{"token": null, "token":17}"#).unwrap(),
        "17"
    );
    assert_eq!(find_in(json, r#"{"token": "a\nb"}"#), None);
    assert_eq!(find_in(json, r#"{"tokens": "a"}"#), None);
    let field = "from = 'field:csrf'";
    assert_eq!(
        find_in(
            field,
            "<p><input name='x' value='1'><INPUT type=\"hidden\" value=\"a>&#43;&amp;&x;\"\n name=csrf />"
        )
        .unwrap(),
        "a>+&&x;"
    );
    assert_eq!(
        find_in(
            field,
            "<meta name=\"csrf\" content=\"c\" /><input name=csrf value=d>"
        )
        .unwrap(),
        "c"
    );
    assert_eq!(find_in(field, "<inputname=csrf>"), None);
}

#[test]
fn a_value_without_end_is_given_up() {
    let body = "from = 'body'\nafter = '<<'\nbefore = '>>'";
    let filler = "x".repeat(LONGEST_VALUE * 3);
    assert_eq!(find_in(body, &format!("<<{filler}>>")), None);
    assert_eq!(
        find_in(body, &format!("{filler}<<a>>{filler}")).unwrap(),
        "a"
    );
}

#[test]
fn encoded_bodies_are_not_looked_into() {
    let rules = rules("from = 'json:a'");
    let scan = |fields: &str| Scan::new(&rules, &head(fields), |_| true).is_some();
    assert!(scan(
        "Content-Type: text/html\r\nContent-Encoding: identity\r\n"
    ));
    assert!(!scan("Content-Encoding: gzip\r\n"));
    assert!(Scan::new(&rules, &head(""), |_| false).is_none());
}

#[test]
fn what_does_not_end_is_not_looked_through_with_each_byte() {
    for (rule, begin, byte) in [
        ("from = 'field:a'", "<input x=\"", b'>'),
        ("from = 'field:a'", "<input ", b'x'),
        ("from = 'json:a'", "{\"a\":\"", b'x'),
        ("from = 'body'\nafter = '<'\nbefore = 'END'", "<", b'E'),
    ] {
        let rules = rules(rule);
        let mut scan = Scan::new(&rules, &head(""), |_| true).unwrap();
        scan.read(&rules, begin.as_bytes(), false);
        let mut looks = 0;
        for _ in 0..8_000 {
            let before = scan.new;
            scan.read(&rules, &[byte], false);
            looks += usize::from(scan.new <= before);
        }
        // A sixteenth more each time.
        assert!(looks < 200, "{rule}: {looks}");
    }
}
