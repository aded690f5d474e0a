#!/bin/sh
# Credit three users from a CSV file, using curl: create the users, insert their ids into a copy of credits.csv, upload the copy,
# and wait for the result.
#
#     sh examples/bulk_credit.sh          # needs a running sandbox; set PSP_URL and PSP_API_KEY unless it is the default one
#
# The exit code is 0 if three rows were credited and the fourth row, whose user does not exist, is invalid; otherwise 1.
set -eu

url=${PSP_URL:-http://127.0.0.1:8000}
key=${PSP_API_KEY:-sk_sandbox_demo_admin}
here=$(dirname "$0")
run=$(date +%s)-$$ # part of the idempotency keys, so that each run credits again
file=$(mktemp)
trap 'rm -f "$file"' EXIT

call() { curl -sS --max-time 60 -H "X-API-KEY: $key" "$@"; }
first_id() { sed -n 's/.*"id":"\([^"]*\)".*/\1/p'; }

cp "$here/credits.csv" "$file"
for name in customer-1 customer-2 customer-3; do
    # If the user exists from an earlier run, the response is 409.
    call -o /dev/null "$url/api/v1/users" -H "X-IDEMPOTENCY-KEY: $name-$run" -H 'Content-Type: application/json' \
        -d "{\"name\": \"Customer\", \"external_id\": \"$name\"}"
    id=$(call "$url/api/v1/users?external_id=$name" | first_id)
    sed "s/^$name,/$id,/" "$file" >"$file.new" && mv "$file.new" "$file"
done

accepted=$(call "$url/api/v1/wallet/bulk-credit" -H "X-IDEMPOTENCY-KEY: credits-$run" -F "file=@$file;type=text/csv")
echo "$accepted"
activity=$(echo "$accepted" | sed -n 's/.*"activity_id":"\([^"]*\)".*/\1/p')

for _ in $(seq 100); do
    state=$(call "$url/api/v1/wallet/bulk-credit/$activity")
    case $state in
        *'"UPLOADED"'* | *'"PROCESSING"'*) sleep 0.3 ;;
        *) break ;;
    esac
done
echo "$state"
call "$url/api/v1/wallet/bulk-credit/$activity/items?status=INVALID"
echo
case $state in
    *'"total":4,"invalid":1,'*'"succeeded":3,"failed":0,'*) exit 0 ;;
    *) exit 1 ;;
esac
