package clickhouse

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// destination is where ClickHouse itself writes its backups. It is taken apart when
// it is read and put together anew for each statement, so that only these forms and
// characters reach the server:
//
//	Disk('name', 'folder')                       a disk that backups.allowed_disk names
//	File('/folder')                              a folder within backups.allowed_path
//	S3('https://host/bucket/folder')             credentials of the server's environment
//	S3(collection, 'folder')                     a named collection holds URL and keys
//	AzureBlobStorage(collection, 'folder')
//
// Keys stand in the server's configuration, never in a statement, where its log and
// system.backups would show them.
type destination struct {
	engine     string // Disk, File, S3, AzureBlobStorage
	collection string // a named collection, not quoted
	disk       string
	folder     string // the last argument: one backup is a folder below it
}

var (
	destinationForm = regexp.MustCompile(`^\s*(Disk|File|S3|AzureBlobStorage)\s*\(\s*(?:([A-Za-z_][A-Za-z0-9_]*|'[^']*')\s*,\s*)?'([^']*)'\s*\)\s*$`)
	// Nothing that a quoted text in SQL would have to escape.
	destinationText = regexp.MustCompile(`^[A-Za-z0-9._:/@+=~-]*$`)
	backupName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

func parseDestination(text string) (d destination, err error) {
	m := destinationForm.FindStringSubmatch(text)
	if m == nil {
		return d, fmt.Errorf("clickhouse: backup destination %q must be Disk('name', 'folder'), File('/folder'), S3('https://…') or S3(collection, 'folder')", text)
	}
	d = destination{engine: m[1], folder: m[3]}
	first, quoted := strings.Trim(m[2], "'"), strings.HasPrefix(m[2], "'")
	switch {
	case d.engine == "Disk" && quoted && first != "":
		d.disk = first
	case d.engine == "File" && m[2] == "" && path.IsAbs(d.folder):
	case d.engine == "S3" && m[2] == "" && strings.HasPrefix(d.folder, "https://"):
	case (d.engine == "S3" || d.engine == "AzureBlobStorage") && m[2] != "" && !quoted:
		d.collection = first
	default:
		return d, fmt.Errorf("clickhouse: backup destination %q does not have the arguments of %s", text, d.engine)
	}
	for _, s := range []string{d.disk, d.folder} {
		if !destinationText.MatchString(s) {
			return d, fmt.Errorf("clickhouse: backup destination %q may hold only characters of %s", text, destinationText)
		}
		for part := range strings.SplitSeq(s, "/") {
			if part == ".." {
				return d, fmt.Errorf("clickhouse: backup destination %q goes up with ..", text)
			}
		}
	}
	return d, nil
}

// of returns the SQL of one shard's backup.
func (d destination) of(name string, shard int) string {
	folder := fmt.Sprintf("%s/shard-%d", name, shard)
	if d.folder != "" {
		folder = strings.TrimRight(d.folder, "/") + "/" + folder
	}
	switch {
	case d.disk != "":
		return fmt.Sprintf("%s('%s', '%s')", d.engine, d.disk, folder)
	case d.collection != "":
		return fmt.Sprintf("%s(%s, '%s')", d.engine, d.collection, folder)
	default:
		return fmt.Sprintf("%s('%s')", d.engine, folder)
	}
}
