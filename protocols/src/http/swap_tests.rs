use super::super::head::HeadReader;
use super::super::rewrite;
use super::super::settings::Settings;
use super::*;

/// Live `L` is `T T/2` at the target, `a=b` is `c==`, 17 is 99, and `P` is not known yet.
fn find(_: usize, value: &[u8]) -> Known {
    match value {
        b"L" => Known::Is(b"T T/2".to_vec()),
        b"a=b" => Known::Is(b"c==".to_vec()),
        b"17" => Known::Is(b"99".to_vec()),
        b"P" => Known::NotYet,
        _ => Known::No,
    }
}

fn swap<R>(rule: &str, act: impl FnOnce(&mut Swap<'_>) -> R) -> (R, bool) {
    let settings = Settings::parse(&format!("[[token]]\nfrom = 'json:x'\n{rule}")).unwrap();
    let mut swap = Swap {
        rules: &settings.token,
        find: &find,
        knows: &|_| true,
        waits: None,
    };
    let result = act(&mut swap);
    (result, swap.waits.is_some())
}

fn head(text: &str, rule: &str) -> (String, bool) {
    let (_, head) = HeadReader::default().read(text.as_bytes()).unwrap();
    let head = head.unwrap();
    let (swapped, waits) = swap(rule, |swap| swap.head(&head));
    let head = rewrite::write(&head, &Settings::default(), &swapped);
    (String::from_utf8(head.into_owned()).unwrap(), waits)
}

fn body(content: Content, text: &str, rule: &str) -> String {
    let (body, _) = swap(rule, |swap| swap.body(content, text.as_bytes()));
    body.map_or("as it was".into(), |body| String::from_utf8(body).unwrap())
}

#[test]
fn values_in_heads_are_replaced_where_they_stand_alone() {
    let (text, waits) = head(
        "GET /a/L/LL/17?x=L&y=a%3Db&z=L1&L#L HTTP/1.1\r\nHost: L\r\nCookie: s=L; t=a=b;u=XL\r\n\
         Authorization: Bearer a=b\r\nX-A: token=\"17\", L-17\r\nReferer: http://live/17?L=L\r\n\r\n",
        "",
    );
    assert_eq!(
        text,
        "GET /a/T%20T%2F2/LL/99?x=T%20T%2F2&y=c%3D%3D&z=L1&L#L HTTP/1.1\r\nHost: L\r\n\
         Cookie: s=T%20T%2F2; t=c==;u=XL\r\nAuthorization: Bearer c==\r\nX-A: token=\"99\", L-17\r\n\
         Referer: http://live/99?L=T%20T%2F2\r\n\r\n"
    );
    assert!(!waits);
}

#[test]
fn a_rule_reaches_only_its_places() {
    let text = "GET /17?a=17&b=17 HTTP/1.1\r\nX: 17\r\nY: 17\r\nCookie: a=17; b=17\r\n\r\n";
    let (swapped, _) = head(text, "to = ['query:b', 'header:y', 'cookie:a']");
    assert_eq!(
        swapped,
        "GET /17?a=17&b=99 HTTP/1.1\r\nX: 17\r\nY: 99\r\nCookie: a=99; b=17\r\n\r\n"
    );
    let (swapped, waits) = head("GET /P HTTP/1.1\r\n\r\n", "to = ['query']");
    assert_eq!(
        (swapped.as_str(), waits),
        ("GET /P HTTP/1.1\r\n\r\n", false)
    );
    let (_, waits) = head("GET /x?y=P HTTP/1.1\r\n\r\n", "to = ['query']");
    assert!(waits);
}

#[test]
fn values_in_forms_and_json_are_replaced() {
    let form = |text: &str, rule| body(Content::Form, text, rule);
    assert_eq!(form("a=L&b=a%3Db&c=1+L", ""), "a=T%20T%2F2&b=c%3D%3D&c=1+L");
    assert_eq!(form("a=1&b", ""), "as it was");
    assert_eq!(form("a=L&b=L", "to = ['form:b']"), "a=L&b=T%20T%2F2");
    let json = |text: &str, rule| body(Content::Json, text, rule);
    assert_eq!(
        json(
            r#"{"L" : "L", "n": [17, -17, "17"], "e": "\u004c", "x": "a L"}"#,
            ""
        ),
        r#"{"L" : "T T/2", "n": [99, -17, "99"], "e": "T T/2", "x": "a L"}"#
    );
    assert_eq!(
        json(r#"{"a": 17, "b": 17}"#, "to = ['json:b']"),
        r#"{"a": 17, "b": 99}"#
    );
    assert_eq!(json(r#"{"a": 18, "b": "L"#, ""), "as it was");
    assert_eq!(json("\"\\", ""), "as it was");
}
