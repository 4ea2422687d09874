//! The processes under observation: each opens its socket before the agent starts, and uses it when it is told to.

use std::env;
use std::io::{Read, Write, stdin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use socket2::{Domain, Protocol, Socket, Type};

use crate::workload::{Truth, until_released};

/// Local port of every client socket that is older than the agent.
pub(super) const CLIENT_PORT: u16 = 5100;
/// Messages of one exchange.
pub(super) const ROUNDS: usize = 3;
/// A protocol number for experiments (RFC 3692), for raw sockets.
const RAW_PROTOCOL: u8 = 253;
const TIMEOUT: Duration = Duration::from_secs(60);
const WORKERS: usize = 2;

/// Plays one of the roles of this module.
pub(crate) fn play(role: &str, address: SocketAddr) {
    match role {
        "older-server" => server(address),
        "older-client" => client(address),
        "older-prefork" => prefork(address),
        "older-worker" => worker(),
        "older-listener-heir" => listener_heir(address),
        "older-udp-heir" => udp_heir(address),
        role => panic!("no role {role}"),
    }
}

/// Serves one connection that is older than the agent and one that is not, and answers datagrams; over IPv4 on a socket that
/// is bound to every address.
fn server(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let ip = if address.is_ipv4() {
        any(address)
    } else {
        address.ip()
    };
    // Without a timeout, with which the freezer would interrupt its receive.
    let socket = UdpSocket::bind((ip, address.port())).unwrap();
    Truth::about_myself(address).print();
    let connections = thread::spawn(move || {
        let (mut older, _) = listener.accept().unwrap();
        older.write_all(b"!").unwrap();
        let older = thread::spawn(|| echo(older));
        echo(listener.accept().unwrap().0);
        older.join().unwrap();
    });
    answer(&socket);
    connections.join().unwrap();
    until_released();
}

fn echo(mut connection: TcpStream) {
    connection.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut byte = [0];
    while connection.read(&mut byte).unwrap() == 1 {
        connection.write_all(&byte).unwrap();
    }
}

fn answer(socket: &UdpSocket) {
    let mut message = [0; 16];
    for _ in 0..ROUNDS {
        let (length, peer) = socket.recv_from(&mut message).unwrap();
        socket.send_to(&message[..length], peer).unwrap();
    }
}

/// Has one socket of each kind, and opens another connection when it is told to act.
fn client(address: SocketAddr) {
    let mut older = TcpStream::from(connected(Type::STREAM, address));
    older.set_read_timeout(Some(TIMEOUT)).unwrap();
    // From here on the server has accepted it.
    older.read_exact(&mut [0]).unwrap();
    let udp = UdpSocket::from(connected(Type::DGRAM, address));
    udp.set_read_timeout(Some(TIMEOUT)).unwrap();
    let ping = ping_socket(address);
    let raw_protocol = Protocol::from(i32::from(RAW_PROTOCOL));
    let raw = Socket::new(Domain::for_address(address), Type::RAW, Some(raw_protocol)).unwrap();
    Truth::about_myself(older.local_addr().unwrap()).print();
    until_told();

    let mut later = TcpStream::connect(address).unwrap();
    later.set_read_timeout(Some(TIMEOUT)).unwrap();
    let echo_request = if address.is_ipv4() { 8 } else { 128 };
    for _ in 0..ROUNDS {
        for connection in [&mut older, &mut later] {
            connection.write_all(b"?").unwrap();
            connection.read_exact(&mut [0]).unwrap();
        }
        udp.send(b"question").unwrap();
        udp.recv(&mut [0; 16]).unwrap();
        ping.send_to(&[echo_request, 0, 0, 0, 0, 0, 0, 1], address)
            .unwrap();
        ping.recv(&mut [0; 64]).unwrap();
        raw.send_to(b"raw", &SocketAddr::new(address.ip(), 0).into())
            .unwrap();
    }
    println!("\nDONE");
    until_released();
}

/// A socket bound to the client's port of its family alone.
fn connected(kind: Type, address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket
        .bind(&SocketAddr::new(any(address), CLIENT_PORT).into())
        .unwrap();
    socket.connect(&address.into()).unwrap();
    socket
}

/// A ping socket: the kernel chooses the identifier, which is its port, and fills it in.
fn ping_socket(address: SocketAddr) -> UdpSocket {
    let protocol = if address.is_ipv4() {
        Protocol::ICMPV4
    } else {
        Protocol::ICMPV6
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(protocol)).unwrap();
    socket.bind(&SocketAddr::new(any(address), 0).into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// Listens, and leaves accepting to workers that inherit the listener.
fn prefork(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let truth = Truth::about_myself(listener.local_addr().unwrap());
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let mut command = Command::new(env::current_exe().unwrap());
            command
                .args(env::args_os().skip(1))
                .env("NFLOG_TEST_ROLE", "older-worker");
            let stdin = listener.as_fd().try_clone_to_owned().unwrap();
            command.stdin(stdin).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    truth.print();
    until_released();
    for worker in &mut workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
}

/// Accepts from the listener that it has as standard input, and says who it is to each client. Ends with its parent.
fn worker() {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let listener = TcpListener::from(stdin().as_fd().try_clone_to_owned().unwrap());
    loop {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(&std::process::id().to_be_bytes()).unwrap();
        echo(connection);
    }
}

/// The same for a process that was handed its listener.
fn listener_heir(address: SocketAddr) {
    Truth::about_myself(address).print();
    worker();
}

/// Answers datagrams on the socket that it has as standard input.
fn udp_heir(address: SocketAddr) {
    let socket = UdpSocket::from(stdin().as_fd().try_clone_to_owned().unwrap());
    Truth::about_myself(address).print();
    loop {
        answer(&socket);
    }
}

fn any(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// Until the test says so.
fn until_told() {
    assert_ne!(
        stdin().read_line(&mut String::new()).unwrap(),
        0,
        "the test has ended"
    );
}
