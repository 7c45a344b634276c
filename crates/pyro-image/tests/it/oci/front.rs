//! A front of TLS before a server of a test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Speaks TLS with this certificate and key, and hands requests on to a port on loopback.
pub(crate) fn tls(to: u16, certificate: &Path, key: &Path) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::pem_file_iter(certificate).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificate.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || {
                let mut inside = rustls::StreamOwned::new(connection, stream);
                let mut chunk = vec![0; 64 * 1024];
                // Requests of these tests come in one piece. A client that does not trust the
                // certificate sends none.
                let count = inside.read(&mut chunk)?;
                let mut outside = TcpStream::connect(("127.0.0.1", to)).unwrap();
                outside.write_all(&chunk[..count])?;
                std::io::copy(&mut outside, &mut inside)?;
                inside.conn.send_close_notify();
                inside.flush()
            });
        }
    });
    port
}
