PREPARE check_benefit (int, bigint, int, text, date) AS
SELECT * FROM check_benefit($1, $2, $3, $4, $5);

PREPARE confirm_transaction (bigint, int, bigint, int, bigint, bigint) AS
SELECT confirm_transaction($1, $2, $3, $4, $5, $6);
