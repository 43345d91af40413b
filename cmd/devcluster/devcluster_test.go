package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func TestLacking(t *testing.T) {
	all := func(string) bool { return true }
	for _, tc := range []struct {
		name string
		goos string
		euid int
		look func(string) bool
		want string // of the message; "" when nothing is missing
	}{
		{"all there", "linux", 0, all, ""},
		{"not Linux", "darwin", 0, all, "use a Linux machine"},
		{"not root", "linux", 1000, all, "sudo devcluster up"},
		{"no Go", "linux", 0, func(p string) bool { return p != "go" }, "https://go.dev/dl/"},
		{"no containerd", "linux", 0, func(p string) bool { return p != "containerd" }, "apt-get install --no-install-recommends containerd"},
		{"no plugins", "linux", 0, func(p string) bool { return !strings.HasPrefix(p, cniDir) }, "apt-get install --no-install-recommends containernetworking-plugins"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := lacking(tc.goos, tc.euid, tc.look)
			switch {
			case got == nil && tc.want != "":
				t.Errorf("nothing is missing, want %q", tc.want)
			case got != nil && (tc.want == "" || !strings.Contains(got.Error(), tc.want)):
				t.Errorf("%v, want %q", got, tc.want)
			}
		})
	}
}

func TestPinnedVersionsAreRead(t *testing.T) {
	v, err := pinned(".", "cache")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{v.Kubernetes, v.Kueue, v.Etcd, v.Kwok} {
		if !strings.HasPrefix(s, "v") {
			t.Errorf("version %q", s)
		}
	}
	if !strings.Contains(v.binDir(), v.Kubernetes) || !strings.Contains(v.binDir(), v.Kueue) {
		t.Errorf("the programs lie in %s", v.binDir())
	}
}

func TestAProcessIsKnownByItsStart(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := proc{"sleep", cmd.Process.Pid, startTime(cmd.Process.Pid)}
	if !p.alive() {
		t.Error("a process that runs counts as dead")
	}
	other := p
	other.Start = "1"
	if other.alive() {
		t.Error("another process with the pid counts as ours")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if p.alive() {
		t.Error("a process that ended counts as alive")
	}
}

func TestStartAndStop(t *testing.T) {
	c := &cluster{dir: t.TempDir(), log: &bytes.Buffer{}, Ports: map[string]int{}}
	for range 2 { // starting twice is starting once
		if err := c.start("sleeper", "sleep", "60"); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.Procs) != 1 || !c.running() {
		t.Fatalf("processes: %+v", c.Procs)
	}
	again, err := open(c.dir, c.log)
	if err != nil || len(again.Procs) != 1 || again.Procs[0] != c.Procs[0] {
		t.Fatalf("another invocation sees %+v, %v", again.Procs, err)
	}
	if err := again.stop("sleeper", time.Second); err != nil {
		t.Fatal(err)
	}
	if c.running() || len(again.Procs) != 0 {
		t.Error("it runs after stop")
	}
}

func TestCertificatesServeAndAreTrusted(t *testing.T) {
	dir := t.TempDir()
	ca, err := newAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.issue(dir, "server", "127.0.0.1", "localhost"); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) { c.(*tls.Conn).Handshake(); c.Close() }(conn)
		}
	}()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.pem)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatalf("the certificate is not trusted: %v", err)
	}
	conn.Close()
	if info, err := os.Stat(filepath.Join(dir, "tls.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
}

func TestWebhooksArePointedHere(t *testing.T) {
	in := `---
kind: MutatingWebhookConfiguration
metadata: {name: mutating-webhook-configuration}
webhooks:
- clientConfig: {service: {name: webhook-service, namespace: system, path: /mutate-batch-v1-job}}
  failurePolicy: Fail
  name: mjob.kb.io
- clientConfig: {service: {name: webhook-service, namespace: system, path: /mutate--v1-pod}}
  name: mpod.kb.io
- clientConfig: {service: {name: webhook-service, namespace: system, path: /mutate-kubeflow-org-v1-pytorchjob}}
  name: mpytorchjob.kb.io
- clientConfig: {service: {name: webhook-service, namespace: system, path: /validate-kueue-x-k8s-io-v1beta2-workload}}
  name: vworkload.kb.io
`
	out, err := localWebhooks([]byte(in), []byte("CA"), "kueue-", 9443, []string{"-batch-v1-job", podWebhook})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"https://127.0.0.1:9443/mutate-batch-v1-job", "https://127.0.0.1:9443/validate-kueue-x-k8s-io-v1beta2-workload", "caBundle: Q0E=", "failurePolicy: Fail",
		"https://127.0.0.1:9443/mutate--v1-pod", "key: kueue.x-k8s.io/queue-name", "name: kueue-mutating"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	for _, not := range []string{"pytorchjob", "service:"} {
		if strings.Contains(string(out), not) {
			t.Errorf("%q is left:\n%s", not, out)
		}
	}
}

func TestManifestsRender(t *testing.T) {
	c := &cluster{dir: t.TempDir(), Node: "node", NodeIP: "192.0.2.1", Ports: map[string]int{"registry": 1, "kubelet": 2, "kueueHealth": 3, "kueueMetrics": 4, "kueueWebhook": 5, "kueueVisibility": 6, "jobsetHealth": 7, "jobsetMetrics": 8, "jobsetWebhook": 9}}
	files, err := manifests.ReadDir("manifests")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := c.render(f.Name()); err != nil || bytes.Contains(b, []byte("<no value>")) {
			t.Errorf("%s: %v\n%s", f.Name(), err, b)
		}
	}
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 0, "usage: devcluster"},
		{[]string{"fly", "--dir", dir}, 2, "is no command"},
		{[]string{"env", "--dir", dir}, 2, "devcluster up"},
		{[]string{"status", "--dir", dir}, 0, "no cluster"},
		{[]string{"status", "--json", "--dir", dir}, 0, `"running": false`},
		{[]string{"down", "--dir", dir}, 0, "no cluster"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.want) {
			t.Errorf("%v: exit %d, want %d with %q:\n%s", tc.args, code, tc.code, tc.want, out.String())
		}
	}
}

func TestUnescape(t *testing.T) {
	if got := unescape(`/a\040b\134c`); got != `/a b\c` {
		t.Error(got)
	}
}

// TestStagesLeaveNoPodHanging: whatever a pod does, a stage applies to it, and
// none takes the finalizer by which its Job counts it.
func TestStagesLeaveNoPodHanging(t *testing.T) {
	b, err := manifests.ReadFile("stages/pods.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	seen := map[string]bool{}
	for {
		var s struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				ResourceRef struct{ Kind string } `yaml:"resourceRef"`
				Next        struct {
					Delete         bool
					Finalizers     any
					StatusTemplate string `yaml:"statusTemplate"`
				}
			}
		}
		if err := dec.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if s.Kind != "Stage" || s.Spec.ResourceRef.Kind != "Pod" || s.Spec.Next.Delete == (s.Spec.Next.StatusTemplate != "") || s.Spec.Next.Finalizers != nil {
			t.Errorf("stage %+v", s)
		}
		seen[s.Metadata.Name] = true
	}
	for _, name := range []string{"pod-ready", "pod-complete", "pod-fail", "pod-stop", "pod-delete"} {
		if !seen[name] {
			t.Errorf("there is no stage %s", name)
		}
	}
}
