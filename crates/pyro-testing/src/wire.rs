//! A server that stands before the registry and misbehaves as it is told.
//!
//! Plain HTTP/1.1, one request for each connection, a thread for each. Every request is noted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// The header.
    pub authorization: Option<String>,
    /// The header.
    pub range: Option<String>,
    /// The body as text.
    pub body: String,
    /// Where a part of an upload begins and ends.
    pub content_range: Option<String>,
    /// The body as it came. Not noted.
    pub bytes: Vec<u8>,
}

impl Request {
    /// Whether a blob is asked for, or sent.
    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    /// From where on something is asked for.
    pub fn offset(&self) -> u64 {
        let range = self.range.as_deref().unwrap_or("bytes=0-");
        range["bytes=".len()..range.len() - 1].parse().unwrap()
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Hand it on.
    Pass,
    /// Hand it on, and break off after so many bytes of the body.
    Cut(usize),
    /// Hand it on, and change the last byte of the body.
    Spoil,
    /// Answer with this status, these headers and this body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Hand it on, and fall silent after so many bytes of the body.
    Stall(usize),
    /// Hand on so many bytes of what the client sends, wait for the end, and break off.
    CutBody(usize),
    /// Say nothing.
    Silence,
    /// Break off at once.
    HangUp,
    /// Be a proxy: connect the client with the port behind.
    Tunnel,
    /// Send a body without end.
    Endless,
    /// Promise a body of so many bytes as this content type, and send none of it.
    Promise(u64, &'static str),
}

/// The noted requests, and how many bytes of blobs went to the client.
#[derive(Debug, Default)]
struct Log {
    requests: Vec<Request>,
    blob_bytes: u64,
}

/// A server on loopback.
#[derive(Debug)]
pub struct Server {
    /// Its port.
    pub port: u16,
    log: Arc<Mutex<Log>>,
}

impl Server {
    /// Serves for as long as the test's process lives. `upstream` is a port on loopback.
    pub fn start(upstream: u16, decide: impl Fn(&Request) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Log::default()));
        let (noted, decide) = (Arc::clone(&log), Arc::new(decide));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, decide) = (Arc::clone(&noted), Arc::clone(&decide));
                std::thread::spawn(move || {
                    let _ = serve(stream, (port, upstream), &noted, &*decide);
                });
            }
        });
        Self { port, log }
    }

    /// Its name in references.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What came, in its order.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().requests.clone()
    }

    /// Bytes of blobs that were sent to clients.
    pub fn blob_bytes(&self) -> u64 {
        self.log.lock().unwrap().blob_bytes
    }
}

/// The body of a document, straight from a server.
pub fn get(port: u16, path: &str) -> Vec<u8> {
    let (_, body) = ask(port, "GET", path, &["Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json".to_owned()], &[]).unwrap();
    let mut bytes = Vec::new();
    { body }.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Asks a server. Gives the head of its answer, and its body to be read.
pub fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[String],
    body: &[u8],
) -> std::io::Result<(String, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut more = headers.join("\r\n");
    if !more.is_empty() {
        more.push_str("\r\n");
    }
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}\r\n"
    )?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    Ok((head(&mut reader)?, reader))
}

fn head(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if reader.read_line(&mut text)? == 0 {
            break;
        }
    }
    Ok(text)
}

fn serve(
    mut stream: TcpStream,
    (port, upstream): (u16, u16),
    log: &Mutex<Log>,
    decide: &(dyn Fn(&Request) -> Deed + Send + Sync),
) -> std::io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first)? == 0 {
        return Ok(());
    }
    if first[0] == 0x16 {
        // TLS. A server that does not speak it says so in its own way.
        return stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let text = head(&mut reader)?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let headers: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let find = |name: &str| {
        headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length = find("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    // A proxy is asked with the whole address.
    let path = path.strip_prefix("http://").map_or(path, |rest| {
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization: find("authorization"),
        range: find("range"),
        body: String::from_utf8_lossy(&body).into_owned(),
        content_range: find("content-range"),
        bytes: body,
    };
    log.lock().unwrap().requests.push(Request {
        bytes: Vec::new(),
        ..request.clone()
    });
    let mut passed: Vec<String> = headers
        .into_iter()
        .filter(|line| {
            let name = line.to_ascii_lowercase();
            !name.starts_with("host:") && !name.starts_with("connection:")
        })
        .collect();
    // So that the registry tells addresses of ours.
    passed.push(format!("X-Forwarded-Host: 127.0.0.1:{port}"));
    let forward = |limit: usize, spoil: bool, stream: &mut TcpStream| {
        let (head, mut from) = ask(
            upstream,
            &request.method,
            &request.path,
            &passed,
            &request.bytes,
        )?;
        stream.write_all(head.as_bytes())?;
        let mut left = limit;
        let mut bytes = Vec::new();
        if spoil {
            from.read_to_end(&mut bytes)?;
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            return stream.write_all(&bytes);
        }
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut chunk)?;
            if count == 0 || left == 0 {
                return Ok(());
            }
            let count = count.min(left);
            left -= count;
            if request.is_blob() && head.starts_with("HTTP/1.1 20") {
                log.lock().unwrap().blob_bytes += count as u64;
            }
            stream.write_all(&chunk[..count])?;
        }
    };
    match decide(&request) {
        Deed::Pass => forward(usize::MAX, false, &mut stream),
        Deed::Cut(limit) => forward(limit, false, &mut stream),
        Deed::Spoil => forward(usize::MAX, true, &mut stream),
        Deed::Stall(limit) => {
            forward(limit, false, &mut stream)?;
            // Until the test's process ends, or the client does.
            stream.read_exact(&mut [0]).map(drop)
        }
        Deed::Answer(status, headers, body) => {
            let mut more = String::new();
            for (name, value) in headers {
                more.extend([name.as_str(), ": ", &value, "\r\n"]);
            }
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
                body.len()
            )?;
            stream.write_all(&body)
        }
        Deed::CutBody(limit) => {
            let cut = &request.bytes[..limit.min(request.bytes.len())];
            let mut behind = TcpStream::connect(("127.0.0.1", upstream))?;
            let more = passed.join("\r\n");
            let (method, path) = (&request.method, &request.path);
            write!(
                behind,
                "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{more}\r\n\r\n"
            )?;
            behind.write_all(cut)?;
            behind.shutdown(std::net::Shutdown::Write)?;
            behind.read_to_end(&mut Vec::new()).map(drop)
        }
        // Until the test's process ends, or the client does.
        Deed::Silence => stream.read_exact(&mut [0]).map(drop),
        Deed::HangUp => Ok(()),
        Deed::Tunnel => {
            let mut behind = TcpStream::connect(("127.0.0.1", upstream))?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            let (mut from, mut to) = (behind.try_clone()?, stream.try_clone()?);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                to.shutdown(std::net::Shutdown::Both)
            });
            std::io::copy(&mut reader, &mut behind).map(drop)
        }
        Deed::Promise(length, media_type) => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
            )?;
            // Until the test's process ends, or the client does.
            stream.read_exact(&mut [0]).map(drop)
        }
        Deed::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[7; 8 * 1024])?;
            }
        }
    }
}
