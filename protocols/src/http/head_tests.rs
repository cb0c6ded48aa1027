use super::*;

fn read(text: &[u8], piece: usize) -> Result<(usize, Option<Head<'_>>), Bad> {
    let mut reader = HeadReader::default();
    let mut len = 0;
    for bytes in text.chunks(piece) {
        let (taken, head) = reader.read(bytes)?;
        len += taken;
        if head.is_some() {
            return Ok((len, head));
        }
        assert_eq!(taken, bytes.len());
    }
    Ok((len, None))
}

fn head(text: &str) -> Head<'_> {
    read(text.as_bytes(), text.len()).unwrap().1.unwrap()
}

fn framing(fields: &str) -> Result<Framing, Bad> {
    head(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).framing()
}

#[test]
fn a_head_is_found_in_any_pieces_and_kept_as_it_came() {
    let text =
        b"\r\n\r\nGET /a?b=c HTTP/1.1\r\nhOst:  live \t\r\nEmpty:\r\nA: b: c\r\n\r\nGET / HTTP";
    // One that comes whole and at once is read where it lies.
    let all = (1..=text.len()).flat_map(|piece| [(piece, 0), (piece, 4)]);
    for (piece, from) in all {
        let text = &text[from..];
        let (len, head) = read(text, piece).unwrap();
        let head = head.unwrap();
        assert_eq!(len, text.len() - 10);
        assert_eq!(head.raw(), &text[4 - from..len]);
        assert_eq!(
            (head.method(), head.target()),
            (&b"GET"[..], &b"/a?b=c"[..])
        );
        let fields: Vec<_> = head.fields().map(|it| (it.name, it.value)).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"hOst", b"live"), (b"Empty", b""), (b"A", b"b: c")];
        assert_eq!(fields, expected);
        assert_eq!(head.version(), "HTTP/1.1");
    }
}

#[test]
fn what_servers_read_differently_is_no_head() {
    for text in [
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nA: b\n\r\n",
        // Whoever ends lines with CRLF alone reads other fields here.
        "GET / HTTP/1.1\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        "GET / HTTP/1.1\r\nA:\nC: d\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b \nC: d\r\n\r\n",
        "GET / HTTP/1.1\r\n\n",
        "GET / HTTP/1.1\r\nA: b\r\n\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        "GET / HTTP/1.1\r\n A: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / x HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.11\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}",
        " GET / HTTP/1.1\r\n\r\n",
    ] {
        assert!(read(text.as_bytes(), text.len()).is_err(), "{text:?}");
        assert!(read(text.as_bytes(), 1).is_err(), "{text:?}");
    }
}

#[test]
fn a_head_has_a_bound() {
    let long = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(LONGEST_HEAD));
    assert!(read(long.as_bytes(), 16 * 1024).is_err());
    assert!(read("x".repeat(LONGEST_HEAD + 1).as_bytes(), 1000).is_err());
    let many = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "A: b\r\n".repeat(MOST_FIELDS + 1)
    );
    assert!(read(many.as_bytes(), 16 * 1024).is_err());
}

#[test]
fn a_body_ends_where_every_server_sees_it_end_or_the_request_is_refused() {
    assert_eq!(framing(""), Ok(Framing::Sized(0)));
    assert_eq!(framing("content-length: 007\r\n"), Ok(Framing::Sized(7)));
    assert_eq!(
        framing("Transfer-Encoding: Chunked\r\n"),
        Ok(Framing::Chunked)
    );
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert!(framing(fields).is_err(), "{fields:?}");
    }
    let old = head("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(old.framing().is_err());
}

#[test]
fn what_may_become_another_protocol_is_known() {
    let asks = |text: &str| head(text).asks_for_tunnel();
    assert!(asks("CONNECT a:1 HTTP/1.1\r\n\r\n"));
    assert!(asks(
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
    ));
    assert!(!asks("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"));
    assert!(!asks(
        "GET / HTTP/1.1\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"
    ));
    assert!(head("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expects_continue());
}
