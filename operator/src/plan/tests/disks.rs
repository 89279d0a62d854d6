//! Disks of the toy world: those of machines, those of a network, and processes that still write to one after their pod is gone.

use super::super::*;
use super::world::{Box_, World};

/// How long a disk of the network stays attached to a machine that does not answer.
const DETACH: Ms = 360_000;

#[derive(Clone, Debug)]
pub struct Disk {
    /// Where it is, or, of one of the network, where it is attached or was last.
    pub machine: String,
    pub machine_id: String,
    /// Whose data it has.
    pub data: Option<String>,
    pub object: bool,
    pub network: Option<Network>,
}

/// What there is about a disk that any machine can use.
#[derive(Clone, Debug)]
pub struct Network {
    /// It is attached to one machine at a time. Another can be used from anywhere at once.
    pub exclusive: bool,
    /// Since when no pod uses it where it is attached.
    pub unused: Option<Ms>,
}

/// A process whose pod object is gone, on a machine that has not heard of that.
#[derive(Clone, Debug)]
pub struct Zombie {
    pub instance: String,
    pub machine: String,
    pub machine_id: String,
}

impl Disk {
    /// Whether a process on that machine can write to it.
    pub fn is_usable_at(&self, machine_id: &str) -> bool {
        self.machine_id == machine_id || self.network.as_ref().is_some_and(|network| !network.exclusive)
    }
}

impl World {
    pub fn disk_of(&self, instance: &str) -> Option<&Disk> {
        self.disks.get(self.claims.get(instance)?.volume.as_deref()?)
    }

    /// The machines on which a process of an instance runs that can write to its disk.
    pub fn writers(&self, instance: &str) -> Vec<&Box_> {
        let Some(disk) = self.disk_of(instance) else { return Vec::new() };
        let own = self.zombies.iter().filter(|zombie| zombie.instance == instance);
        let zombies = own
            .filter_map(|zombie| self.boxes.get(&zombie.machine))
            .filter(|on| disk.is_usable_at(&on.machine));
        self.box_of(instance).filter(|_| self.runs(instance)).into_iter().chain(zombies).collect()
    }

    /// The pod object goes. Its process lives on if its machine does and does not hear of it; that matters where the disk may be used elsewhere meanwhile. Of disks
    /// that could be used from both, whoever has the object removed is right that the machine is off: otherwise it is Kubernetes itself that runs it twice.
    pub fn remove_pod(&mut self, name: &str) {
        let Some(on) = self.box_of(name).filter(|on| on.power) else {
            self.pods.remove(name);
            return;
        };
        let machine_id = on.machine.clone();
        let network = self.disk_of(name).and_then(|disk| disk.network.as_ref());
        let moves = network.is_some_and(|network| network.exclusive);
        let Some(pod) = self.pods.remove(name) else { return };
        if let Some(machine) = pod.machine.filter(|_| pod.containers_ready && moves) {
            self.zombies.push(Zombie { instance: name.into(), machine, machine_id });
        }
    }

    /// Processes without a pod end with their machine, when its kubelet hears of it, and when they cannot write any more.
    pub fn bury(&mut self) {
        let (boxes, claims, disks) = (&self.boxes, &self.claims, &self.disks);
        self.zombies.retain(|zombie| {
            let volume = claims.get(&zombie.instance).and_then(|claim| claim.volume.as_ref());
            let lives = |on: &Box_| on.machine == zombie.machine_id && on.power && !(on.kubelet && on.object);
            boxes.get(&zombie.machine).is_some_and(lives)
                && volume
                    .and_then(|volume| disks.get(volume))
                    .is_some_and(|disk| disk.is_usable_at(&zombie.machine_id))
        });
    }

    /// Disks of the network are taken from machines where no pod uses them, and given to those where one waits.
    pub fn attachments(&mut self) {
        for (name, pod) in &self.pods {
            let Some(volume) = self.claims.get(name).and_then(|claim| claim.volume.as_ref()) else {
                continue;
            };
            let Some(disk) = self.disks.get_mut(volume) else { continue };
            let (Some(network), Some(machine)) = (&mut disk.network, &pod.machine) else { continue };
            let Some(on) = self.boxes.get(machine) else { continue };
            if disk.machine == *machine && disk.machine_id == on.machine {
                network.unused = None;
                continue;
            }
            let since = *network.unused.get_or_insert(self.now);
            let there = self.boxes.get(&disk.machine).filter(|there| there.machine == disk.machine_id);
            let is_free = match there {
                Some(there) if there.out_of_service => true,
                Some(there) => there.object && there.power && there.kubelet,
                None => false,
            };
            if is_free || !network.exclusive || self.now - since >= DETACH {
                (disk.machine, disk.machine_id, network.unused) = (machine.clone(), on.machine.clone(), None);
            }
        }
        // Whoever wrote to it before cannot any more.
        self.bury();
        for name in self.claims.keys() {
            let writers = self.writers(name);
            assert!(writers.len() <= 1, "{name} runs twice with its disk: {writers:?}");
        }
    }

    /// Whether an instance with a disk of the network is taken for lost because of its machine.
    pub fn is_of_machine(&self, instance: &str, why: &str) -> bool {
        let network = self.disk_of(instance).is_some_and(|disk| disk.network.is_some() && disk.object);
        network && !["Requested", "VolumeLost", "StorageGrowth"].contains(&why)
    }

    /// Whether the disk of a member is there and is no machine's, and nobody has asked for it to go.
    pub fn is_needlessly_lost(&self, node: &str) -> bool {
        let instance = &self.db.nodes[node].instance;
        let network = self.disk_of(instance).is_some_and(|disk| disk.network.is_some());
        let asked = self
            .claims
            .get(instance)
            .is_none_or(|claim| claim.replace || claim.deleting || claim.leaving == Some(Leaving::Abandoned));
        network && !asked && self.is_intact(node)
    }
}
