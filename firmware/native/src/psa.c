/* PSA Crypto, as far as the firmware uses it: the twin computes. */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "psa/crypto.h"
#include "twin_rpc.h"

#define SHA256_SIZE 32
#define POINT_SIZE 65
#define SIGNATURE_SIZE 64
#define MAX_KEYS 4

static struct {
    bool used;
    uint8_t point[POINT_SIZE];
} s_keys[MAX_KEYS];
static pthread_mutex_t s_mutex = PTHREAD_MUTEX_INITIALIZER;

psa_status_t psa_crypto_init(void)
{
    return PSA_SUCCESS;
}

psa_status_t psa_import_key(const psa_key_attributes_t *attributes, const uint8_t *data, size_t data_length,
                            psa_key_id_t *key)
{
    if (attributes->type != PSA_KEY_TYPE_ECC_PUBLIC_KEY(PSA_ECC_FAMILY_SECP_R1)) {
        return PSA_ERROR_NOT_SUPPORTED;
    }
    if (data_length != POINT_SIZE || data[0] != 0x04) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    psa_status_t status = PSA_ERROR_INSUFFICIENT_MEMORY;
    pthread_mutex_lock(&s_mutex);
    for (psa_key_id_t i = 0; i < MAX_KEYS; i++) {
        if (!s_keys[i].used) {
            s_keys[i].used = true;
            memcpy(s_keys[i].point, data, POINT_SIZE);
            *key = i + 1;
            status = PSA_SUCCESS;
            break;
        }
    }
    pthread_mutex_unlock(&s_mutex);
    return status;
}

psa_status_t psa_destroy_key(psa_key_id_t key)
{
    if (key == 0 || key > MAX_KEYS) {
        return PSA_ERROR_INVALID_HANDLE;
    }
    pthread_mutex_lock(&s_mutex);
    s_keys[key - 1].used = false;
    pthread_mutex_unlock(&s_mutex);
    return PSA_SUCCESS;
}

psa_status_t psa_verify_hash(psa_key_id_t key, psa_algorithm_t alg, const uint8_t *hash, size_t hash_length,
                             const uint8_t *signature, size_t signature_length)
{
    if (key == 0 || key > MAX_KEYS || !s_keys[key - 1].used) {
        return PSA_ERROR_INVALID_HANDLE;
    }
    if (alg != PSA_ALG_ECDSA(PSA_ALG_SHA_256) || hash_length != SHA256_SIZE) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    if (signature_length != SIGNATURE_SIZE) {
        return PSA_ERROR_INVALID_SIGNATURE;
    }
    uint8_t request[POINT_SIZE + SHA256_SIZE + SIGNATURE_SIZE];
    memcpy(request, s_keys[key - 1].point, POINT_SIZE);
    memcpy(request + POINT_SIZE, hash, SHA256_SIZE);
    memcpy(request + POINT_SIZE + SHA256_SIZE, signature, SIGNATURE_SIZE);
    return twin_call(TWIN_VERIFY_HASH, 0, 0, request, sizeof(request), NULL, 0, NULL, NULL);
}

psa_status_t psa_hash_setup(psa_hash_operation_t *operation, psa_algorithm_t alg)
{
    if (alg != PSA_ALG_SHA_256) {
        return PSA_ERROR_NOT_SUPPORTED;
    }
    if (operation->handle != 0) {
        return PSA_ERROR_BAD_STATE;
    }
    uint32_t handle = 0;
    const psa_status_t status = twin_call(TWIN_HASH_START, 0, 0, NULL, 0, NULL, 0, NULL, &handle);
    if (status == PSA_SUCCESS) {
        operation->handle = handle + 1; /* the twin may count from 0 */
    }
    return status;
}

psa_status_t psa_hash_update(psa_hash_operation_t *operation, const uint8_t *input, size_t input_length)
{
    if (operation->handle == 0) {
        return PSA_ERROR_BAD_STATE;
    }
    return twin_call(TWIN_HASH_UPDATE, operation->handle - 1, 0, input, input_length, NULL, 0, NULL, NULL);
}

psa_status_t psa_hash_finish(psa_hash_operation_t *operation, uint8_t *hash, size_t hash_size,
                             size_t *hash_length)
{
    if (operation->handle == 0) {
        return PSA_ERROR_BAD_STATE;
    }
    if (hash_size < SHA256_SIZE) {
        return PSA_ERROR_BUFFER_TOO_SMALL;
    }
    size_t got = 0;
    const psa_status_t status =
        twin_call(TWIN_HASH_FINISH, operation->handle - 1, 0, NULL, 0, hash, SHA256_SIZE, &got, NULL);
    operation->handle = 0;
    *hash_length = got;
    return status == PSA_SUCCESS && got != SHA256_SIZE ? PSA_ERROR_GENERIC_ERROR : status;
}

psa_status_t psa_hash_abort(psa_hash_operation_t *operation)
{
    if (operation->handle == 0) {
        return PSA_SUCCESS;
    }
    const uint32_t handle = operation->handle - 1;
    operation->handle = 0;
    return twin_call(TWIN_HASH_ABORT, handle, 0, NULL, 0, NULL, 0, NULL, NULL);
}

psa_status_t psa_hash_compute(psa_algorithm_t alg, const uint8_t *input, size_t input_length, uint8_t *hash,
                              size_t hash_size, size_t *hash_length)
{
    psa_hash_operation_t operation = PSA_HASH_OPERATION_INIT;
    psa_status_t status = psa_hash_setup(&operation, alg);
    if (status == PSA_SUCCESS) {
        status = psa_hash_update(&operation, input, input_length);
    }
    if (status == PSA_SUCCESS) {
        status = psa_hash_finish(&operation, hash, hash_size, hash_length);
    }
    if (status != PSA_SUCCESS) {
        (void)psa_hash_abort(&operation);
    }
    return status;
}
