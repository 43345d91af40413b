package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// lacking says what the machine needs before a cluster can run on it, with the
// command that installs it; nil when nothing is missing.
func lacking(goos string, euid int, look func(string) bool) *needError {
	if goos != "linux" {
		return &needError{"a cluster runs on Linux only", "use a Linux machine or a virtual one"}
	}
	if euid != 0 {
		return &needError{"the kubelet and containerd need root", "run it as root, for example: sudo devcluster up"}
	}
	if !look("go") {
		return &needError{"the go command is not in PATH", "install Go from https://go.dev/dl/"}
	}
	var missing, packages []string
	for _, p := range []struct{ program, pkg string }{
		{"containerd", "containerd"}, {"runc", "runc"}, {cniDir + "/bridge", "containernetworking-plugins"}, {cniDir + "/host-local", ""}, {"mount", "mount"}, {"ip", "iproute2"},
	} {
		if !look(p.program) {
			missing = append(missing, p.program)
			if p.pkg != "" {
				packages = append(packages, p.pkg)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if len(packages) == 0 {
		packages = []string{"containernetworking-plugins"}
	}
	return &needError{"not found: " + strings.Join(missing, ", "), "install them: apt-get install --no-install-recommends " + strings.Join(packages, " ")}
}

func found(program string) bool {
	if filepath.IsAbs(program) {
		_, err := os.Stat(program)
		return err == nil
	}
	_, err := exec.LookPath(program)
	return err == nil
}

// up brings the cluster to the state in which everything is ready, from
// whatever state it is in.
func (c *cluster) up(ctx context.Context) error {
	from := time.Now()
	if need := lacking("linux", os.Geteuid(), found); need != nil {
		return need
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	src, err := sourceDir(ctx)
	if err != nil {
		return err
	}
	want, err := pinned(src, cache)
	if err != nil {
		return err
	}
	if c.Ready && c.running() && c.Versions == want {
		c.say("the cluster is up; eval \"$(devcluster env)\" points kubectl and repromill at it")
		return nil
	}
	if len(c.Procs) > 0 { // half a cluster, or one of other versions
		if err := c.down(ctx); err != nil {
			return err
		}
	}
	c.Versions, c.Started, c.Ready = want, time.Now().UTC().Truncate(time.Second), false
	if err := c.build(ctx, src, c.Versions.targets()); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.startControlPlane, c.startRegistry, c.startObjectStore, c.startNode, func(ctx context.Context) error { return c.startKueue(ctx, src) }, c.furnish} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w\n(what has started goes on; `devcluster down` stops it)", err)
		}
	}
	c.Ready = true
	if err := c.save(); err != nil {
		return err
	}
	c.say("the cluster is up after %s; eval \"$(devcluster env)\" points kubectl and repromill at it", time.Since(from).Round(time.Second))
	return nil
}

// prepare chooses ports and writes keys and configurations.
func (c *cluster) prepare() (err error) {
	if c.Node, err = os.Hostname(); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	c.Node = strings.ToLower(c.Node)
	if c.NodeIP, err = address(); err != nil {
		return err
	}
	c.Ports = map[string]int{}
	if err := c.ports("etcd", "etcdPeer", "apiserver", "controllerManager", "scheduler", "kubelet", "registry", "objects", "kueueHealth", "kueueMetrics", "kueueWebhook", "kueueVisibility"); err != nil {
		return err
	}
	for _, dir := range []string{"etcd", "run", "kubelet/volume-plugins", "registry"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	if err := c.outside(c.volume()); err != nil {
		return err
	}
	// The kubelet and the network plugins keep a few files there whatever they
	// are told; another kubelet's are left alone.
	for _, dir := range []string{"/var/lib/kubelet", "/var/lib/cni"} {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			c.Outside = append(c.Outside, dir)
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.secrets(); err != nil {
		return err
	}
	return c.writeConfigs()
}

// ports chooses ports for those programs that have none yet.
func (c *cluster) ports(names ...string) (err error) {
	for _, name := range names {
		if c.Ports[name] == 0 {
			if c.Ports[name], err = freePort(); err != nil {
				return err
			}
		}
	}
	return nil
}

// address is an address of this machine that is not a loopback one.
func address() (string, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w", err)
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", &needError{"this machine has no IPv4 address but loopback", "bring a network interface up"}
}

// freePort finds a port that nothing listens on at any address.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *cluster) bin(name string) string { return filepath.Join(c.Versions.binDir(), name) }

func (c *cluster) startControlPlane(ctx context.Context) error {
	etcd := fmt.Sprintf("http://127.0.0.1:%d", c.Ports["etcd"])
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.Ports["etcdPeer"])
	err := c.start("etcd", c.bin("etcd"), "--name=devcluster", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=devcluster="+peer)
	if err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	err = c.start("kube-controller-manager", c.bin("kube-controller-manager"), "--kubeconfig="+c.path("kube-controller-manager.kubeconfig"), "--use-service-account-credentials",
		"--leader-elect=false", "--controllers=*,-nodeipam,-route,-service-lb-controller", "--service-account-private-key-file="+c.path("pki/service-accounts.key"),
		"--root-ca-file="+c.path("pki/ca.crt"), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.Ports["controllerManager"]),
		"--node-monitor-grace-period=20s", "--terminated-pod-gc-threshold=200", "--cert-dir="+c.path("run", "kcm"))
	if err != nil {
		return err
	}
	return c.start("kube-scheduler", c.bin("kube-scheduler"), "--kubeconfig="+c.path("kube-scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.Ports["scheduler"]), "--cert-dir="+c.path("run", "scheduler"))
}

// startRegistry starts the registry that the node pulls from.
func (c *cluster) startRegistry(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// `go run` removes its program when it ends; the registry goes on.
	own := c.path("run", "devcluster")
	if out, err := exec.CommandContext(ctx, "cp", "-f", exe, own).CombinedOutput(); err != nil {
		return fmt.Errorf("copy this program: %w: %s", err, out)
	}
	return c.start("registry", own, registryEntry, c.registry(), c.path("registry"))
}

// startAPIServer starts the API server and waits until it answers.
func (c *cluster) startAPIServer(ctx context.Context) error {
	pki := func(name ...string) string { return c.path(append([]string{"pki"}, name...)...) }
	err := c.start("kube-apiserver", c.bin("kube-apiserver"),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.Ports["etcd"]), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.Ports["apiserver"]),
		"--advertise-address="+c.NodeIP, "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
		"--tls-cert-file="+pki("apiserver", "tls.crt"), "--tls-private-key-file="+pki("apiserver", "tls.key"), "--client-ca-file="+pki("ca.crt"),
		"--token-auth-file="+pki("tokens.csv"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+pki("service-accounts.key"), "--service-account-signing-key-file="+pki("service-accounts.key"),
		"--kubelet-client-certificate="+pki("kubelet-client", "tls.crt"), "--kubelet-client-key="+pki("kubelet-client", "tls.key"), "--kubelet-certificate-authority="+pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP", "--enable-aggregator-routing=true", "--requestheader-client-ca-file="+pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file="+pki("front-proxy", "tls.crt"), "--proxy-client-key-file="+pki("front-proxy", "tls.key"), "--profiling=false")
	if err != nil {
		return err
	}
	return c.await(ctx, "kube-apiserver", "the API server is ready", 3*time.Minute, func() error {
		_, err := c.kubectl(ctx, nil, "get", "--raw", "/readyz")
		return err
	})
}

func (c *cluster) startNode(ctx context.Context) error {
	if err := c.await(ctx, "registry", "the registry answers", time.Minute, func() error { return answers("http://" + c.registry() + "/v2/") }); err != nil {
		return err
	}
	if err := c.pushPause(ctx); err != nil {
		return err
	}
	if err := c.start("containerd", "containerd", "--config", c.path("etc/containerd.toml"), "--log-level", "warn"); err != nil {
		return err
	}
	err := c.await(ctx, "containerd", "containerd listens", time.Minute, func() error {
		conn, err := net.Dial("unix", c.path("run/containerd.sock"))
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	err = c.start("kubelet", c.bin("kubelet"), "--kubeconfig="+c.path("kubelet.kubeconfig"), "--config="+c.path("etc/kubelet.yaml"), "--hostname-override="+c.Node,
		"--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("pki", "kubelet"), "--node-ip="+c.NodeIP)
	if err != nil {
		return err
	}
	return c.await(ctx, "kubelet", "the node is ready", 3*time.Minute, func() error {
		out, err := c.kubectl(ctx, nil, "get", "node", c.Node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("its condition Ready is %q", out)
		}
		return err
	})
}

// answers reports whether a server of the cluster answers at all.
func answers(url string) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// managerFolders are where Kueue's manager looks for certificates, whatever
// its configuration says. A worker's finds those of the first cluster there.
func (c *cluster) managerFolders() []string {
	if c.Name == workerName {
		return nil
	}
	return []string{"/visibility", "/etc/kueue/metrics/certs"}
}

func (c *cluster) startKueue(ctx context.Context, src string, args ...string) error {
	mod, err := moduleDir(ctx, src, "kueue", "sigs.k8s.io/kueue")
	if err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: kueue-system}\n"), "apply", "-f", "-"); err != nil {
		return err
	}
	sets, err := moduleDir(ctx, src, "kueue", "sigs.k8s.io/jobset")
	if err != nil {
		return err
	}
	keda, err := moduleDir(ctx, src, "keda", "github.com/kedacore/keda/v2") // nothing acts on its objects here; they are checked
	if err != nil {
		return err
	}
	const crds = "config/components/crd/bases"
	if _, err := c.kubectl(ctx, nil, "apply", "--server-side", "-f", filepath.Join(mod, crds), "-f", filepath.Join(sets, crds), "-f", filepath.Join(keda, "config/crd/bases/keda.sh_scaledobjects.yaml")); err != nil {
		return err
	}
	// The manager ends at once when a type it watches is not served yet.
	// kubectl itself gives up on one that has no conditions at all yet.
	err = c.await(ctx, "kube-apiserver", "Kueue's types are served", 2*time.Minute, func() error {
		_, err := c.kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=10s", "crd", "--all")
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range c.managerFolders() {
		if err := c.outside(dir); err != nil {
			return err
		}
		for _, name := range []string{"tls.crt", "tls.key"} {
			b, err := os.ReadFile(c.path("pki/kueue", name))
			if err != nil {
				return fmt.Errorf("read certificate: %w", err)
			}
			if err := writeFile(filepath.Join(dir, name), b, 0o600); err != nil {
				return err
			}
		}
	}
	args = append([]string{"--config=" + c.path("etc/kueue.yaml"), "--kubeconfig=" + c.path("kueue.kubeconfig"), "--zap-log-level=2"}, args...)
	if err := c.start("kueue", c.bin("kueue"), args...); err != nil {
		return err
	}
	if err := c.await(ctx, "kueue", "Kueue is ready", 2*time.Minute, func() error { return answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", c.Ports["kueueHealth"])) }); err != nil {
		return err
	}
	if err := c.await(ctx, "kueue", "Kueue's webhooks listen", 2*time.Minute, func() error { return answers(fmt.Sprintf("https://127.0.0.1:%d/", c.Ports["kueueWebhook"])) }); err != nil {
		return err
	}
	return c.installWebhooks(ctx, filepath.Join(mod, "config/components/webhook/manifests.yaml"), "kueue-", c.Ports["kueueWebhook"],
		"-batch-v1-job", "-apps-v1-deployment", podWebhook, "-jobset-x-k8s-io-v1alpha2-jobset")
}

// outside makes a folder that lies outside of the state folder, and notes it
// so that `down` takes it away; one that is there and not ours is refused.
func (c *cluster) outside(dir string) error {
	for _, known := range c.Outside {
		if known == dir {
			return os.MkdirAll(dir, 0o755)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		return &needError{dir + " exists and is not this cluster's", "stop what uses it, or move it away"}
	}
	c.Outside = append(c.Outside, dir)
	if err := c.save(); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// podWebhook is the end of the paths of Kueue's webhooks for pods.
const podWebhook = "--v1-pod"

// localWebhooks points webhooks at a manager on this machine: those of Kueue's own
// objects, and those whose path has one of the endings. Of pods those alone are
// sent there that belong to a queue, since others must start where the manager is
// down.
func localWebhooks(text, ca []byte, prefix string, port int, endings []string) ([]byte, error) {
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var out strings.Builder
	enc := yaml.NewEncoder(&out)
	for {
		var doc map[string]any
		if err := dec.Decode(&doc); err != nil {
			if err.Error() == "EOF" {
				break
			}
			return nil, fmt.Errorf("read webhooks: %w", err)
		}
		if doc == nil {
			continue
		}
		if meta, ok := doc["metadata"].(map[string]any); ok {
			meta["name"] = prefix + fmt.Sprint(meta["name"])
		}
		var kept []any
		list, _ := doc["webhooks"].([]any)
		for _, w := range list {
			hook, _ := w.(map[string]any)
			client, _ := hook["clientConfig"].(map[string]any)
			service, _ := client["service"].(map[string]any)
			path, _ := service["path"].(string)
			if !strings.Contains(path, "-kueue-x-k8s-io-") && !slices.ContainsFunc(endings, func(end string) bool { return strings.HasSuffix(path, end) }) {
				continue
			}
			if strings.HasSuffix(path, podWebhook) {
				hook["objectSelector"] = map[string]any{"matchExpressions": []any{map[string]any{"key": "kueue.x-k8s.io/queue-name", "operator": "Exists"}}}
			}
			hook["clientConfig"] = map[string]any{
				"url": fmt.Sprintf("https://127.0.0.1:%d%s", port, path), "caBundle": base64.StdEncoding.EncodeToString(ca),
			}
			kept = append(kept, hook)
		}
		doc["webhooks"] = kept
		if err := enc.Encode(doc); err != nil {
			return nil, fmt.Errorf("write webhooks: %w", err)
		}
	}
	return []byte(out.String()), enc.Close()
}

// gpus is how many simulated GPUs the node has.
const gpus = "8"

// furnish gives the node its GPUs and the cluster its queues.
func (c *cluster) furnish(ctx context.Context) error {
	patch := fmt.Sprintf(`[{"op":"add","path":"/status/capacity/nvidia.com~1gpu","value":%q}]`, gpus)
	if _, err := c.kubectl(ctx, nil, "patch", "node", c.Node, "--subresource=status", "--type=json", "-p", patch); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, nil, "label", "node", c.Node, "--overwrite", "nvidia.com/gpu.product=NVIDIA-H200", "repromill.dev/simulated-gpus=true"); err != nil {
		return err
	}
	for _, name := range []string{"visibility.yaml", "queues.yaml"} {
		b, err := c.render(name)
		if err != nil {
			return err
		}
		// The webhooks of a manager that has just started may refuse for a moment.
		err = c.await(ctx, "kueue", "its objects are accepted", time.Minute, func() error {
			_, err := c.kubectl(ctx, b, "apply", "-f", "-")
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.await(ctx, "kueue", "the queues and the visibility API are ready", 2*time.Minute, func() error {
		out, err := c.kubectl(ctx, nil, "get", "clusterqueues", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Active")].status}`)
		if err == nil && out != "True True" {
			err = fmt.Errorf("the queues' Active conditions are %q", out)
		}
		if err == nil {
			_, err = c.kubectl(ctx, nil, "get", "--raw", "/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/repromill/localqueues/repromill-small/pendingworkloads")
		}
		if err == nil {
			_, err = c.kubectl(ctx, nil, "get", "serviceaccount", "default", "-n", "repromill")
		}
		return err
	})
}
