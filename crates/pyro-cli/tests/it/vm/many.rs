//! Several machines of one template, alive at once. `measure alive` has fifty.

use futures_util::future::join_all;
use pyro::{MachineOptions, StartKind};
use pyro_testing::traces;

use super::lifecycle::{client, started};
use super::sdk::output;
use super::world;

/// How many.
const MACHINES: usize = 6;

#[tokio::test]
async fn machines_of_one_template_live_beside_each_other() {
    let world = world();
    let pyro = client(&world);
    let options = MachineOptions {
        mem_mib: 256,
        ..MachineOptions::default()
    };
    let mut machines = join_all((0..MACHINES).map(|_| started(&pyro, &options))).await;
    for (number, machine) in machines.iter_mut().enumerate() {
        let began = machine.ready().unwrap().started;
        let warm = matches!(began, StartKind::Warm | StartKind::Made);
        assert!(warm, "{began:?}");
        let line = format!("echo {number} > /root/number");
        assert_eq!(output(machine, &line).await.1, 0);
    }
    assert_eq!(traces::vmms(&world).len(), MACHINES);
    let asked = machines
        .iter_mut()
        .map(|machine| output(machine, "cat /root/number"));
    for (number, (said, _)) in join_all(asked).await.into_iter().enumerate() {
        assert_eq!(said, format!("{number}\n"));
    }
    for ended in join_all(machines.into_iter().map(|machine| machine.stop(false))).await {
        ended.unwrap();
    }
    traces::assert_none(&world);
}
