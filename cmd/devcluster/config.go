package main

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"text/template"
)

//go:embed manifests stages
var manifests embed.FS

// render fills a template of the manifests folder with what is known of the
// cluster.
func (c *cluster) render(name string) ([]byte, error) {
	text, err := manifests.ReadFile("manifests/" + name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	t, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("parse manifest %s: %w", name, err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{
		"Dir": c.dir, "Node": c.Node, "NodeIP": c.NodeIP, "Ports": c.Ports, "Registry": c.registry(), "Pause": c.registry() + "/" + pauseImage + ":1",
		"Volume": c.volume(), "PodCIDR": podCIDR, "Bridge": bridge, "CNI": cniDir,
	})
	if err != nil {
		return nil, fmt.Errorf("fill manifest %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// What the network of the pods is called. Pods reach the node and one another,
// and nothing beyond: no address is translated.
const (
	podCIDR = "10.214.0.0/16"
	bridge  = "rmdev0"
	cniDir  = "/usr/lib/cni"
)

func (c *cluster) apiURL() string { return fmt.Sprintf("https://127.0.0.1:%d", c.Ports["apiserver"]) }

func kubeconfig(name, url string, ca []byte, token string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: %[1]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[1]s, namespace: repromill}
clusters:
- name: %[1]s
  cluster: {server: %[2]q, certificate-authority-data: %[3]s}
users:
- name: %[1]s
  user: {token: %[4]q}
`, name, url, base64.StdEncoding.EncodeToString(ca), token)
}

// writeConfigs writes the configuration files of all programs.
func (c *cluster) writeConfigs() error {
	for manifest, path := range map[string]string{
		"containerd.toml": "etc/containerd.toml", "hosts.toml": "etc/certs.d/" + c.registry() + "/hosts.toml", "cni.conflist": "etc/cni/10-devcluster.conflist",
		"kubelet.yaml": "etc/kubelet.yaml", "kueue.yaml": "etc/kueue.yaml",
	} {
		b, err := c.render(manifest)
		if err != nil {
			return err
		}
		if err := writeFile(c.path(path), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
