package kueue

import (
	"os"
	"time"

	"github.com/repromill/repromill/runner"
)

// Config says which cluster, which queue and which volume.
type Config struct {
	Kubeconfig string // empty is what kubectl takes
	Context    string
	Namespace  string // empty is the context's
	Queue      string // LocalQueue. Required.
	Priority   string // WorkloadPriorityClass; empty is the cluster's default

	// Root is where the volume of Claim is mounted on this machine; Dir, below
	// it, holds the attempts. All three are required.
	Root, Dir, Claim string
	// Image is what pods run in; it holds what commands need beside the
	// volume, such as Python. Required.
	Image string
	// Worker is this program, static, as a file below Root or else a path
	// inside of Image. Required.
	Worker string
	// UID and GID are the pods'. 0 is this process's own; for root it is one for
	// every run, so that the kernel's limit on a user's processes counts those
	// of one run on a node, and what an attempt may write is handed over to it.
	UID, GID int

	// Images are those of model servers by the engine's name, for arms that name
	// none; an engine that is not in it is run in Image. Cache is the folder below
	// Root with weights and data sets, which pods see read-only.
	Images map[string]string
	Cache  string
	// HubEndpoint is where seeds find the hub, empty is the hub itself; HubSecret is
	// a Secret of the namespace whose key HF_TOKEN they get, empty is none.
	HubEndpoint, HubSecret string
	// ServerCPU and ServerMemory are what each model server asks for; empty is "8"
	// and "64Gi" with a GPU, "500m" and "1Gi" without.
	ServerCPU, ServerMemory string
	// NodeGPUs are the GPUs of a node, all of which are asked for where speed is
	// measured; 0 asks for those that the arm uses.
	NodeGPUs int
	// Topology is the node label of the lowest level of the Topology that the queue's
	// flavours name: a pod that measures speed has to get one such place as a whole.
	// Empty is for flavours that name none, to which Kueue would not admit it.
	Topology string
	// StartPatience is how long shards may wait for their image or their servers
	// once they have a node; 0 is an hour.
	StartPatience time.Duration
	// VolumeDelay is how long the volume may take to show here what a pod wrote, as
	// NFS caches what is not there; 0 is a minute.
	VolumeDelay time.Duration

	CPU          string            // of a pod, or of a client beside model servers; empty is "1"
	NodeSelector map[string]string // for every pod
	Annotations  map[string]string // of every pod
	Product      string            // label nvidia.com/gpu.product of nodes for attempts with GPUs; empty is any
	// SKUOf turns such a label into an id of estimators/sku, "" for one that it
	// does not know; nil knows none.
	SKUOf        func(product string) string
	RuntimeClass string
	TTL          time.Duration // of ended Jobs; 0 is a day
	MaxEvictions int           // before an attempt is given up; 0 is 5
	AllowPrivate []string      // see local.Config
	Limits       runner.Limits // replace zero fields of an attempt's own
	Now          func() time.Time
	// Hook is called around every durable step, with points such as
	// "kueue:create:before"; nil is none.
	Hook func(point string)
}

// Defaults of runner.Limits.
const (
	defaultWall        = 24 * time.Hour
	defaultOutputBytes = 64 << 20
	defaultMemoryBytes = 2 << 30
	defaultProcesses   = 4096
	defaultFileBytes   = 64 << 30
)

func (c *Config) fill() {
	if c.UID == 0 {
		c.UID, c.GID = os.Getuid(), os.Getgid()
	}
	if c.CPU == "" {
		c.CPU = "1"
	}
	if c.TTL == 0 {
		c.TTL = 24 * time.Hour
	}
	if c.MaxEvictions == 0 {
		c.MaxEvictions = 5
	}
	if c.StartPatience == 0 {
		c.StartPatience = time.Hour
	}
	if c.VolumeDelay == 0 {
		c.VolumeDelay = time.Minute
	}
	if c.SKUOf == nil {
		c.SKUOf = func(string) string { return "" }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
}

func fill(l, d runner.Limits) runner.Limits {
	l.Wall = first(l.Wall, d.Wall, defaultWall)
	l.OutputBytes = first(l.OutputBytes, d.OutputBytes, defaultOutputBytes)
	l.MemoryBytes = first(l.MemoryBytes, d.MemoryBytes, defaultMemoryBytes)
	l.Processes = first(l.Processes, d.Processes, defaultProcesses)
	l.FileBytes = first(l.FileBytes, d.FileBytes, defaultFileBytes)
	return l
}

// first is the first value that is set.
func first[T int | int64 | time.Duration | string](values ...T) (zero T) {
	for _, v := range values {
		if v > zero {
			return v
		}
	}
	return zero
}
