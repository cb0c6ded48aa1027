//! Seeds for the protocol modules.

use millrace_protocols::Kind;

use super::Seeds;

/// What each module understands, said over the connections of the engine's seeds.
pub(super) fn seeds() -> Seeds {
    let redis =
        b"*2\r\n$4\r\nAUTH\r\n$4\r\nlive\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\nPING\r\n";
    let http = b"GET /login HTTP/1.1\r\nHost: a\r\nCookie: sid=abcdefgh\r\n\r\n\
        POST /api/a?order=7 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\norder=7&a\
        PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let page = b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=abcdefgh\r\nContent-Length: 22\r\n\r\n{\"access_token\":\"tttt\"}\
        HTTP/1.1 201 Created\r\nLocation: /orders/7\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let talks: [(&str, Kind, &[u8], &[u8]); 4] = [
        ("accepted", Kind::Redis, redis, b"+OK\r\n+OK\r\n+PONG\r\n"),
        ("refused", Kind::Redis, redis, b"-WRONGPASS no\r\n"),
        ("http", Kind::Http, http, page),
        ("mysql", Kind::MySql, &mysql_client(), &mysql_server()),
    ];
    let mut seeds = Seeds::new();
    for (talk, kind, client, server) in talks {
        let kind = Kind::ALL.iter().position(|it| *it == kind).unwrap();
        for (name, bytes) in super::engine() {
            let len = |text: &[u8]| u16::try_from(text.len()).unwrap().to_be_bytes();
            let lens = [len(client), len(server)].concat();
            let kind = [u8::try_from(kind).unwrap()];
            let input = [&kind[..], &lens, client, server, &bytes];
            seeds.push((format!("{name}-{talk}"), input.concat()));
        }
    }
    seeds
}

/// A packet of MySQL.
fn mysql(number: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&len[..3], &[number], payload].concat()
}

/// A greeting with a scramble, the end of a log-in, and the answer to a PREPARE without parameters or columns.
fn mysql_server() -> Vec<u8> {
    let greeting = [
        b"\x0a10.11.0\0\x01\0\0\0abcdefgh\0\xff\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0",
        &b"ijklmnopqrst\0mysql_native_password\0"[..],
    ];
    let fine = [0, 0, 0, 2, 0, 0, 0];
    let prepared = [0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [
        mysql(0, &greeting.concat()),
        mysql(2, &fine),
        mysql(1, &prepared),
        mysql(1, &fine),
        mysql(1, &fine),
    ]
    .concat()
}

/// A log-in, a PREPARE, its EXECUTE, a statement, and the end.
fn mysql_client() -> Vec<u8> {
    let login = [
        b"\x05\xa2\x0a\0\0\0\0\x01\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        &b"app\0\x14abcdefghijklmnopqrstmysql_native_password\0"[..],
    ];
    let execute = [0x17, 9, 0, 0, 0, 0, 1, 0, 0, 0];
    [
        mysql(1, &login.concat()),
        mysql(0, b"\x16SELECT 1"),
        mysql(0, &execute),
        mysql(0, b"\x03UPDATE t SET a = 'b'"),
        mysql(0, b"\x01"),
    ]
    .concat()
}
