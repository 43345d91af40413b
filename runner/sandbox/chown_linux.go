package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HandOver gives the tree at path to uid and gid the way a sandbox does with
// its writable folders: no symlink is followed, and a file with further hard
// links keeps its owner.
func HandOver(path string, uid, gid int) error { return chown(path, uid, gid) }

// chown hands the tree at path over to uid and gid, through descriptors and
// without following a symlink. A file with further hard links keeps its owner:
// another of its names may lie outside of the tree. So do mounts of other file
// systems, which are not entered.
func chown(path string, uid, gid int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("hand over %s: %w", path, err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return chownBelow(fd, path, st.Dev, uid, gid)
}

func chownBelow(dir int, path string, dev uint64, uid, gid int) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				continue
			}
			return fmt.Errorf("stat %s/%s: %w", path, name, err)
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if st.Dev != dev || !isDir && st.Nlink > 1 {
			continue
		}
		if int(st.Uid) != uid || int(st.Gid) != gid {
			if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("hand over %s/%s: %w", path, name, err)
			}
		}
		if !isDir {
			continue
		}
		sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s/%s: %w", path, name, err)
		}
		err = chownBelow(sub, path+"/"+name, dev, uid, gid)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	return nil
}

// readNames lists an open folder without taking its descriptor over.
func readNames(dir int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
