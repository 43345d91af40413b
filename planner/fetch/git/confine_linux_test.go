package git

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func init() {
	programs["__confined"] = func(args []string) int { return confined(args[0], args[1], args[2]) }
}

// confined is the program of TestConfinement: it confines itself and reports
// what it can still do.
func confined(stage, outside, host string) int {
	req := &workRequest{Dir: stage, Limits: Limits{TotalBytes: 1 << 20, TransferBytes: 1 << 20}.withDefaults()}
	if err := confine(req); err != nil {
		println(err.Error())
		return 1
	}
	can := map[string]bool{}
	can["write stage"] = os.WriteFile(filepath.Join(stage, "x"), []byte("x"), 0o600) == nil
	_, err := os.ReadFile(filepath.Join(outside, "secret"))
	can["read outside"] = err == nil
	can["write outside"] = os.WriteFile(filepath.Join(outside, "x"), []byte("x"), 0o600) == nil
	conn, err := net.Dial("tcp", host)
	if can["dial"] = err == nil; err == nil {
		_ = conn.Close()
	}
	f, err := os.Create(filepath.Join(stage, "large"))
	if err == nil {
		_, err = f.WriteAt([]byte("x"), 3<<30)
		can["large file"] = err == nil
	}
	var core unix.Rlimit
	can["core"] = unix.Getrlimit(unix.RLIMIT_CORE, &core) != nil || core.Cur != 0
	if json.NewEncoder(os.Stdout).Encode(can) != nil {
		return 1
	}
	return 0
}
