//! Engines that require a login.

use std::time::Duration;

use crossdock_engines::{Kind, Login, start};
use crossdock_ports::{LockError, LockRequest, LockWait};
use crossdock_settings::Secret;
use crossdock_tests::EngineServers;

const PASSWORD: &str = "geheim/#@%:1";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// Whether a lock and a number can be had with a login.
fn can_use(servers: &EngineServers, login: Option<Login>) -> Result<(), LockError> {
    let mut options = servers.options("login/gateway", Duration::from_secs(4));
    options.login = login;
    let (locks, running) = start(options).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let used = runtime.block_on(async {
        let request = LockRequest::exclusive("login", LockWait::For(Duration::from_secs(3)));
        let grant = locks.acquire(request).await?;
        assert!(grant.holds());
        locks.next_numbers("login", 1).await.expect("a number");
        drop(grant);
        locks.close().await;
        Ok(())
    });
    drop(running);
    used
}

fn user(name: &str, password: &str) -> Login {
    Login::User { name: name.to_owned(), password: secret(password) }
}

#[test]
#[ignore = "needs etcd and Redis; tests/run installs them"]
fn external_engines_require_their_password() {
    for (kind, name) in [(Kind::Etcd, "root"), (Kind::Redis, "")] {
        let servers = EngineServers::start_with_password(kind, PASSWORD);
        can_use(&servers, Some(user(name, PASSWORD))).unwrap_or_else(|problem| panic!("{kind:?}: {problem}"));
        for login in [None, Some(user(name, "wrong"))] {
            let refused = can_use(&servers, login).expect_err("it is refused");
            let LockError::Unavailable(problem) = refused else { panic!("{kind:?}: {refused:?}") };
            assert!(!problem.contains(PASSWORD) && !problem.contains("wrong"), "{problem}");
        }
    }
}

/// What a user has created is that user's alone.
#[test]
#[ignore = "needs ZooKeeper; tests/run installs it"]
fn external_engines_keep_nodes_from_other_users() {
    let servers = EngineServers::start(Kind::Zookeeper);
    can_use(&servers, Some(user("gateway", PASSWORD))).expect("a lock");
    for login in [None, Some(user("gateway", "wrong")), Some(user("other", PASSWORD))] {
        let refused = can_use(&servers, login).expect_err("it is refused");
        assert!(matches!(refused, LockError::Unavailable(_)), "{refused:?}");
    }
    can_use(&servers, Some(user("gateway", PASSWORD))).expect("a lock");
}
