// Devcluster is a real single-node Kubernetes with Kueue on this machine, for
// development and tests: etcd, the API server, the controller manager, the
// scheduler, the kubelet, containerd, Kueue's manager with its webhooks and
// its visibility API, queues, a node with simulated GPUs, a local registry and
// an S3 server.
//
//	devcluster up       build what is missing, start, wait until all is ready
//	devcluster kwok     simulate --nodes nodes more, which run nothing
//	devcluster worker   start a second control plane, for MultiKueue
//	devcluster status   what runs
//	devcluster image    push a Debian with Python to the cluster's registry
//	devcluster env      shell lines that point kubectl and repromill at it
//	devcluster outage   kill the API server and start it again after --for
//	devcluster down     stop it and leave nothing behind
//
// The programs are built from their Go modules (the modules below this folder
// pin their versions) and are kept in the user's cache folder. The cluster
// needs root on Linux and a few Debian packages, which `up` names when they are
// missing. Nothing but the GPUs is simulated: they are an extended resource
// and a label on the node. Nodes of kwok are the exception, for tests of scale:
// real objects whose pods end after the time that their annotations say.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const usage = `usage: devcluster up|down|kwok|worker|status|image|env|outage [--dir DIR] [--json] [--for TIME] [--nodes N]

  up      build what is missing, start the cluster, wait until it is ready
  down    stop the cluster and leave nothing behind
  kwok    simulate --nodes nodes more (50), whose pods end by themselves
  worker  a second control plane with --nodes simulated nodes, for MultiKueue
  status  what runs, and since when
  image   push a Debian with Python to the cluster's registry, for pods to run
  env     shell lines: eval "$(devcluster env)"
  outage  kill the API server and start it again after --for (1m)
`

// run is one invocation; its result is the exit status: 0 done, 1 a failure of
// ours, 2 something the user has to change first.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == registryEntry {
		return registryMain(args[1:], stderr)
	}
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(stdout, usage)
		return 0
	}
	fl := flag.NewFlagSet("devcluster", flag.ContinueOnError)
	fl.SetOutput(stderr)
	dir := fl.String("dir", "", "the cluster's state folder (default: devcluster/cluster in the user's cache folder)")
	asJSON := fl.Bool("json", false, "print JSON")
	pause := fl.Duration("for", time.Minute, "how long an outage lasts")
	nodes := fl.Int("nodes", 50, "how many nodes kwok simulates")
	if err := fl.Parse(args[1:]); err != nil {
		return 2
	}
	c, err := open(*dir, stderr)
	if err == nil {
		err = c.command(ctx, args[0], *asJSON, *pause, *nodes, stdout)
	}
	var need *needError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &need):
		fmt.Fprintln(stderr, "devcluster:", err)
		return 2
	default:
		fmt.Fprintln(stderr, "devcluster:", err)
		return 1
	}
}

func (c *cluster) command(ctx context.Context, name string, asJSON bool, pause time.Duration, nodes int, stdout io.Writer) error {
	switch name {
	case "up":
		return c.up(ctx)
	case "down":
		return c.down(ctx)
	case "kwok":
		return c.simulate(ctx, nodes)
	case "worker":
		return c.startWorker(ctx, nodes)
	case "status":
		return c.status(ctx, asJSON, stdout)
	case "image":
		if err := c.image(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintln(stdout, c.Image)
		return err
	case "outage":
		return c.outage(ctx, pause)
	case "env":
		if !c.running() {
			return &needError{"the cluster does not run", "start it: devcluster up"}
		}
		_, err := io.WriteString(stdout, c.env())
		return err
	}
	return &needError{fmt.Sprintf("%q is no command", name), "use up, down, kwok, worker, status, image, env or outage"}
}

// needError is something the user has to do first.
type needError struct{ what, fix string }

func (e *needError) Error() string { return e.what + "; " + e.fix }

// cluster is one cluster on this machine, as cluster.json keeps it.
type cluster struct {
	dir string
	log io.Writer

	Name     string         `json:"name,omitempty"` // "worker" for the second one; empty for the first
	Node     string         `json:"node"`
	NodeIP   string         `json:"node_ip"`
	Ports    map[string]int `json:"ports"`
	Procs    []proc         `json:"procs"`
	Outside  []string       `json:"outside"` // folders made outside of dir
	Started  time.Time      `json:"started"`
	Ready    bool           `json:"ready"`
	Image    string         `json:"image,omitempty"` // the base image, once pushed
	Versions versions       `json:"versions"`
}

// open reads what is known of the cluster in dir.
func open(dir string, log io.Writer) (*cluster, error) {
	if dir == "" {
		cache, err := cacheDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(cache, "cluster")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the state folder: %w", err)
	}
	c := &cluster{dir: dir, log: log, Ports: map[string]int{}}
	b, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, c)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's state: %w", err)
	}
	return c, nil
}

func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", &needError{"there is no cache folder", "set HOME or XDG_CACHE_HOME"}
	}
	return filepath.Join(cache, "repromill", "devcluster"), nil
}

func (c *cluster) path(name ...string) string {
	return filepath.Join(append([]string{c.dir}, name...)...)
}

func (c *cluster) save() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's state: %w", err)
	}
	return writeFile(c.path("cluster.json"), append(b, '\n'), 0o600)
}

// writeFile replaces a file as a whole.
func writeFile(path string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(path+".tmp", b, mode); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(path+".tmp", path)
}

func (c *cluster) say(format string, args ...any) { fmt.Fprintf(c.log, format+"\n", args...) }

func (c *cluster) kubeconfig() string { return c.path("admin.kubeconfig") }

// kubeconfigs are those of this cluster and, after it, of its worker.
func (c *cluster) kubeconfigs() []string {
	out := []string{c.kubeconfig()}
	if worker := c.path(workerName, "admin.kubeconfig"); found(worker) {
		out = append(out, worker)
	}
	return out
}

// volume is the folder that stands for shared storage: the persistent volume
// of the examples' claim lies there. Pods see it under its own name, so that no
// image may keep anybody from entering a folder of that name, as images do
// with /root.
func (c *cluster) volume() string { return "/srv/repromill-devcluster" }

func (c *cluster) registry() string { return fmt.Sprintf("127.0.0.1:%d", c.Ports["registry"]) }

// env are the lines of `devcluster env`.
func (c *cluster) env() string {
	out := fmt.Sprintf("export KUBECONFIG=%q\nexport PATH=%q:\"$PATH\"\nexport REPROMILL_DEVCLUSTER_REGISTRY=%q\nexport REPROMILL_CLUSTER_VOLUME=%q\nexport REPROMILL_DEVCLUSTER=%q\n",
		strings.Join(c.kubeconfigs(), ":"), c.Versions.binDir(), c.registry(), c.volume(), c.path("run", "devcluster"))
	url, key, secret := c.bucket()
	out += fmt.Sprintf("export REPROMILL_DEVCLUSTER_BUCKET=%q\nexport REPROMILL_DEVCLUSTER_BUCKET_KEY=%q\nexport REPROMILL_DEVCLUSTER_BUCKET_SECRET=%q\n", url, key, secret)
	if c.Image != "" {
		out += fmt.Sprintf("export REPROMILL_CLUSTER_IMAGE=%q\n", c.Image)
	}
	return out
}

func (c *cluster) status(ctx context.Context, asJSON bool, stdout io.Writer) error {
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{
			"running": c.running(), "ready": c.Ready && c.running(), "dir": c.dir, "kubeconfig": c.kubeconfig(),
			"registry": c.registry(), "volume": c.volume(), "image": c.Image, "node": c.Node, "procs": c.procStates(), "versions": c.Versions,
		})
	}
	if len(c.Procs) == 0 {
		fmt.Fprintln(stdout, "no cluster; start one: devcluster up")
		return nil
	}
	for _, p := range c.procStates() {
		fmt.Fprintf(stdout, "%-26s %-8s pid %d, log %s\n", p.Name, p.State, p.PID, p.Log)
	}
	if c.running() {
		fmt.Fprintln(stdout)
		out, err := c.kubectl(ctx, nil, "get", "nodes,clusterqueues,localqueues", "-A")
		if err != nil {
			return err
		}
		fmt.Fprint(stdout, out)
	}
	return nil
}
