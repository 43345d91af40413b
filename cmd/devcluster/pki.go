package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of one cluster; its key is never written.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// certLife is longer than any development cluster lives.
const certLife = 10 * 365 * 24 * time.Hour

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// issue signs a certificate for a server at the hosts, which also serves as
// a client's with the given name, and writes it to dir/tls.crt and dir/tls.key.
func (a *authority) issue(dir, name string, hosts ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	if err := writeKey(filepath.Join(dir, "tls.key"), key); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// token is a random bearer token.
func token() string {
	var b [24]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// secrets makes the keys, certificates, tokens and kubeconfigs of a cluster.
func (c *cluster) secrets() error {
	if _, err := os.Stat(c.path("pki", "ca.crt")); err == nil {
		return nil
	}
	ca, err := newAuthority("devcluster")
	if err != nil {
		return err
	}
	front, err := newAuthority("devcluster-front-proxy")
	if err != nil {
		return err
	}
	local := []string{"127.0.0.1", "localhost", c.NodeIP, c.Node}
	for _, cert := range []struct {
		by    *authority
		dir   string
		name  string
		hosts []string
	}{
		{ca, "apiserver", "kube-apiserver", append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1"}, local...)},
		{ca, "kubelet", "kubelet", local}, {ca, "kubelet-client", "kube-apiserver-kubelet-client", nil}, {ca, "kueue", "kueue", local},
		{front, "front-proxy", "front-proxy-client", nil},
	} {
		if err := cert.by.issue(c.path("pki", cert.dir), cert.name, cert.hosts...); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	if err := writeKey(c.path("pki", "service-accounts.key"), key); err != nil {
		return err
	}
	if err := writeFile(c.path("pki", "front-proxy-ca.crt"), front.pem, 0o644); err != nil {
		return err
	}
	tokens := ""
	for _, u := range []struct{ file, user, groups string }{
		{"admin", "devcluster-admin", `"system:masters"`},
		{"kube-controller-manager", "system:kube-controller-manager", ""},
		{"kube-scheduler", "system:kube-scheduler", ""},
		{"kubelet", "system:node:" + c.Node, `"system:nodes"`},
		{"kueue", "kueue-controller-manager", `"system:masters"`},
	} {
		t := token()
		tokens += fmt.Sprintf("%s,%s,%s,%s\n", t, u.user, u.user, u.groups)
		if err := writeFile(c.path(u.file+".kubeconfig"), kubeconfig(cmp.Or(c.Name, "devcluster"), c.apiURL(), ca.pem, t), 0o600); err != nil {
			return err
		}
	}
	if err := writeFile(c.path("pki", "tokens.csv"), []byte(tokens), 0o600); err != nil {
		return err
	}
	// Last: its presence says that all of them are there.
	return writeFile(c.path("pki", "ca.crt"), ca.pem, 0o644)
}
