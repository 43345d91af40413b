//go:build linux && cluster

package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// onVolume is a site whose results lie on the cluster's volume, and the part of
// the development cluster's bucket that is this test's own.
func onVolume(t *testing.T) (s site, results, bucket string, credentials []string) {
	t.Helper()
	s = newSite(t, "")
	dir, err := os.MkdirTemp(os.Getenv("REPROMILL_CLUSTER_VOLUME"), "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	results = filepath.Join(dir, "results")
	s.env = append(s.env, "REPROMILL_RESULTS="+results)
	at := os.Getenv("REPROMILL_DEVCLUSTER_BUCKET")
	if at == "" {
		t.Fatal("the development cluster has no object store: run devcluster up again")
	}
	bucket = strings.Replace(at, "?", fmt.Sprintf("/%s-%d?", t.Name(), time.Now().UnixNano()), 1)
	return s, results, bucket, []string{
		"AWS_ACCESS_KEY_ID=" + os.Getenv("REPROMILL_DEVCLUSTER_BUCKET_KEY"), "AWS_SECRET_ACCESS_KEY=" + os.Getenv("REPROMILL_DEVCLUSTER_BUCKET_SECRET"),
	}
}

// stored fails unless the bucket holds one run, whole.
func (s site) stored(t *testing.T, bucket string) {
	t.Helper()
	var rep struct {
		Runs     int
		Rows     int64
		Problems []any
	}
	s.json(t, &rep, "results", "verify", "--bucket", bucket)
	if rep.Runs != 1 || rep.Rows == 0 || len(rep.Problems) != 0 {
		t.Errorf("the bucket holds %+v", rep)
	}
}

// TestClusterCollector: a run goes from its pod over the volume to an S3 server,
// through a pod that holds the credentials; nobody else does.
func TestClusterCollector(t *testing.T) {
	s, results, bucket, credentials := onVolume(t)
	name := os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY") + "/repromill/self:" + fmt.Sprint(time.Now().UnixNano())
	if out, err := s.command("image", "self", "--push", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile("../../examples/cluster/collector.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(os.Getenv("REPROMILL_CLUSTER_VOLUME"), results)
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer(
		"registry.example.org/repromill:v1\n        args", name+"\n        args", "s3://lab-results/papers?region=eu-central-1", bucket, "subPath: results", "subPath: "+rel,
	).Replace(string(b))
	secret := exec.Command("kubectl", append([]string{"create", "secret", "generic", "repromill-object-store", "-n", "repromill"}, "--from-literal="+credentials[0], "--from-literal="+credentials[1])...)
	if out, err := secret.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { kubectl(t, "delete", "secret", "repromill-object-store", "-n", "repromill") })
	if err := os.MkdirAll(results, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"apply", "delete"} {
		do := func() {
			cmd := exec.Command("kubectl", verb, "-f", "-")
			cmd.Stdin = strings.NewReader(manifest)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", verb, err, out)
			}
		}
		if verb == "apply" {
			do()
		} else {
			t.Cleanup(do)
		}
	}
	if out, err := s.command(demo()...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.committed(t)
	s.env = append(s.env, credentials...) // to look at what is there
	var rep struct{ Runs int }
	for end := time.Now().Add(4 * time.Minute); rep.Runs == 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("nothing arrives:\n%s", kubectl(t, "describe", "pods", "-n", "repromill", "-l", "app.kubernetes.io/name=repromill-collector")+
				kubectl(t, "logs", "-n", "repromill", "-l", "app.kubernetes.io/name=repromill-collector", "--tail=50"))
		}
		out, _ := s.command("results", "verify", "--bucket", bucket, "--json").Output() // a push that is under way is no whole run
		json.Unmarshal(out, &rep)
	}
	s.stored(t, bucket)
}

// TestClusterPushKilled: a push that is killed again and again, each time one
// step later than the last, ends with the run in the S3 server once and whole.
func TestClusterPushKilled(t *testing.T) {
	s, _, bucket, credentials := onVolume(t)
	if out, err := s.command("run", "--mirror", "../../examples/mirror", "--executor", "local", "--yes", "2604.08075").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.env = append(s.env, credentials...)
	for n := 1; ; n++ {
		cmd := s.command("results", "push", "--to", bucket)
		cmd.Env = append(cmd.Env, fmt.Sprintf("REPROMILL_FAIL_AT=%d", n))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err == nil {
			break
		} else if cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("push %d: %v\n%s", n, err, &out)
		}
		if n > 200 {
			t.Fatal("it never comes to its end")
		}
	}
	s.stored(t, bucket)
}

// TestClusterOutage: the API server is killed for a minute under a run that is
// watched. Nobody loses anything.
func TestClusterOutage(t *testing.T) {
	s := newSite(t, "")
	var run struct {
		ID string `json:"run_id"`
	}
	s.json(t, &run, "submit", "--yes", "--mirror", "../../examples/mirror", "2604.08075")
	watch := s.command("watch", run.ID)
	var out bytes.Buffer
	watch.Stdout, watch.Stderr = &out, &out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	waitPod(t, "app.kubernetes.io/managed-by=repromill")
	outage := exec.Command(os.Getenv("REPROMILL_DEVCLUSTER"), "outage", "--for", "60s")
	if o, err := outage.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, o)
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("watch: %v\n%s", err, &out)
	}
	s.committed(t)
}

// TestClusterInstall: a pod installs what a paper requires from an index, and
// the pod that runs the paper has no network and finds it installed.
func TestClusterInstall(t *testing.T) {
	ip := kubectl(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	var fetched atomic.Int64
	index := &http.Server{Handler: tinyIndex(t, &fetched)}
	go index.Serve(l)
	t.Cleanup(func() { index.Close() })
	s := newSite(t, "")
	s.env = append(s.env, "UV_DEFAULT_INDEX=", "UV_INDEX_URL=", "PIP_INDEX_URL=http://"+l.Addr().String()+"/simple")
	paper := t.TempDir()
	for name, body := range map[string]string{
		"README.md":        "# Tiny\n\n```bash\npip install -r requirements.txt\npython run.py\n```\n\nThis should give an accuracy of 95.0 %, within 1.0.\n",
		"requirements.txt": "tinypkg==1.0\n",
		"run.py": "import socket, tinypkg\ntry:\n    socket.create_connection((\"" + ip + "\", " + strings.TrimPrefix(l.Addr().String(), ip+":") + "), 2)\n    print(\"the network is open\")\n" +
			"except OSError:\n    print(\"accuracy: %.2f %%\" % tinypkg.value)\n",
	} {
		if err := os.WriteFile(filepath.Join(paper, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out struct {
		Verdict  string
		Executor string
	}
	s.json(t, &out, "run", "--yes", "-q", "--executor", "kueue", paper)
	if out.Verdict != "aligned" || out.Executor != "kueue" || fetched.Load() == 0 {
		t.Errorf("the run gave %+v, %d files were fetched", out, fetched.Load())
	}
}

// tinyIndex is a package index as PEP 503 has it, with one package of one value.
func tinyIndex(t *testing.T, fetched *atomic.Int64) http.Handler {
	t.Helper()
	const file = "tinypkg-1.0-py3-none-any.whl"
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	for name, body := range map[string]string{
		"tinypkg.py":                     "value = 95.2\n",
		"tinypkg-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n",
		"tinypkg-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tinypkg-1.0.dist-info/RECORD":   "tinypkg.py,,\ntinypkg-1.0.dist-info/METADATA,,\ntinypkg-1.0.dist-info/WHEEL,,\ntinypkg-1.0.dist-info/RECORD,,\n",
	} {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(body))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/tinypkg/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><html><body><a href="/files/%s">%s</a></body></html>`, file, file)
	})
	mux.HandleFunc("GET /files/"+file, func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		w.Write(wheel.Bytes())
	})
	return mux
}
